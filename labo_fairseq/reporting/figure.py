"""The one place where matplotlib draws: as PNG files, and as SVG for a page that may be light or dark."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from ..files import whole_file

NO_FIGURE = "no picture: matplotlib is not installed (pip install 'labo-fairseq[plots]')"

#: of systems, in their order, the baseline first: told apart with any colour vision (Okabe and Ito, 2008)
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# Colours that nothing else uses stand for those that the page decides on.
_INK, _GRID = "#010203", "#040506"
_ON_A_PAGE: Dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "grid.color": _GRID,
    "legend.frameon": False,
    "svg.hashsalt": "labo",  # equal pictures are equal files
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
    """Draw into ``path``, which is whole or not there; False where matplotlib is not installed."""
    figure = _figure(size)
    if figure is None:
        return False
    paint(figure)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
    return True


def to_svg(picture: Figure) -> Optional[str]:
    """The picture as SVG in the colours of the reader's light or dark page; None without matplotlib."""
    if _figure(picture.size) is None:
        return None
    from matplotlib import rc_context

    with rc_context(_ON_A_PAGE):
        figure = _figure(picture.size)
        picture.paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().replace(_INK, "var(--ink)").replace(_GRID, "var(--grid)")
    opening, _, rest = svg[svg.index("<svg") :].partition(">")
    return f"{opening}>{_STYLE}{rest}"


def _figure(size: Tuple[float, float]) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=size, constrained_layout=True)
    FigureCanvasAgg(figure)
    return figure
