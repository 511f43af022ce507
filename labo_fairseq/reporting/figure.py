"""The one place where matplotlib draws: as PNG files, and as SVG for a page that may be light or dark."""

import io
import logging
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Set, Tuple

from ..files import atomic_write

logger = logging.getLogger(__name__)

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
#: fonts with the scripts that matplotlib's own font lacks; those that are installed are used
_OTHER_SCRIPTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI"),
    "Arial Unicode MS",
)
_NO_GLYPH = re.compile(r"Glyph (\d+) .*missing from")
_UNSHAPED = re.compile("Matplotlib currently does not support .* natively")  # older versions, of each text
_boxes: Set[str] = set()  # characters that no font has, of which it was told
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
    with _any_script():
        paint(canvas)
        with atomic_write(path) as part:
            canvas.savefig(part, dpi=120, format="png")
    return True


def to_svg(figure: Figure) -> Optional[str]:
    """The figure as SVG in the colors of the reader's light or dark page; None without matplotlib."""
    if _canvas(figure.size) is None:
        return None
    from matplotlib import rc_context

    with rc_context(_ON_A_PAGE), _any_script():
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


@contextmanager
def _any_script() -> Iterator[None]:
    """Draw text of any script, as far as there are fonts for it.

    One line tells of what no font has, in place of a warning of matplotlib for each character.
    """
    from matplotlib import font_manager, rc_context

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["sans-serif", *(name for name in _OTHER_SCRIPTS if name in installed)]
    with warnings.catch_warnings(record=True) as caught, rc_context({"font.family": families}):
        warnings.simplefilter("always")
        yield
    missing = set()
    for warning in caught:
        glyph = _NO_GLYPH.match(str(warning.message))
        if glyph:
            missing.add(chr(int(glyph[1])))
        elif not _UNSHAPED.match(str(warning.message)):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing - _boxes:
        logger.warning(
            "figures have boxes in place of characters that no font here has, such as %s: install a font of that "
            "script, such as Noto Sans CJK, and repeat the command",
            min(missing - _boxes),
        )
    _boxes.update(missing)


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
