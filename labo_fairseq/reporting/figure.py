"""The one place where matplotlib draws: as PNG files, and as SVG for a page that may be light or dark."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from ..files import atomic_write

NO_FIGURE = "no figure: matplotlib is not installed (pip install 'labo-fairseq[plots]')"

#: of systems, in their order, the baseline first: distinct with any color vision (Okabe and Ito, 2008)
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES, _MARKERS = ("-", "--", ":", "-."), "osD^vP"

# Colors that nothing else uses stand for those that the page decides on.
_INK, _GRID = "#010203", "#040506"
_ON_A_PAGE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "grid.color": _GRID,
    "legend.frameon": False,
    "svg.hashsalt": "labo",  # equal figures are equal files
}
_STYLE = "<style>:root{--ink:#222;--grid:#bbb}@media (prefers-color-scheme:dark){:root{--ink:#ddd;--grid:#555}}</style>"


@dataclass(frozen=True)
class Figure:
    """What to draw, and the words for those who do not see it."""

    name: str  # of its file, without the ending
    alt: str
    size: Tuple[float, float]  # inches
    paint: Callable[[Any], None]  # on a matplotlib Figure


def save_png(path: Path, size: Tuple[float, float], paint: Callable[[Any], None]) -> bool:
    """Draw into ``path``, which is complete or absent; False where matplotlib is not installed."""
    canvas = _canvas(size)
    if canvas is None:
        return False
    paint(canvas)
    with atomic_write(path) as part:
        canvas.savefig(part, dpi=120, format="png")
    return True


def to_svg(figure: Figure) -> Optional[str]:
    """The figure as SVG in the colors of the reader's light or dark page; None without matplotlib."""
    if _canvas(figure.size) is None:
        return None
    from matplotlib import rc_context

    with rc_context(_ON_A_PAGE):
        canvas = _canvas(figure.size)
        figure.paint(canvas)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().replace(_INK, "var(--ink)").replace(_GRID, "var(--grid)")
    opening, _, rest = svg[svg.index("<svg") :].partition(">")
    return f"{opening}>{_STYLE}{rest}"


def line_style(number: int) -> Dict[str, str]:
    """Options of the line of system ``number``: color, and a dash once the colors are used up."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "linestyle": _LINES[number // len(PALETTE) % len(_LINES)],
    }


def marker_style(number: int) -> Dict[str, str]:
    """Options of the dots of system ``number``: color and shape, so that neither is needed alone."""
    return {"color": PALETTE[number % len(PALETTE)], "marker": _MARKERS[number % len(_MARKERS)]}


def plain(axes: Any, grid: str = "y") -> None:
    """No frame, and a faint grid along one axis behind the data."""
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def legend_above(figure: Any, title: str = "") -> None:
    """One legend above all panels, of what the first one shows."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    # as many side by side as the figure has room for: inches of a character, and of a line with its gap
    widest = 0.08 * max(map(len, names)) + 0.6
    columns = max(1, min(len(names), 4, int(figure.get_figwidth() / widest)))
    options: Dict[str, Any] = {"loc": "outside upper center", "ncols": columns, "frameon": False}
    figure.legend(handles, names, title=title, title_fontsize=9, fontsize=9, **options)


def _canvas(size: Tuple[float, float]) -> Any:
    """A matplotlib Figure; None where there is no matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        return None
    canvas = Canvas(figsize=size, constrained_layout=True)
    FigureCanvasAgg(canvas)
    return canvas
