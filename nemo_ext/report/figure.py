"""The look of the report's plots; a figure as SVG text to be put inside its page.

Colours are drawn as placeholders and replaced by CSS variables, so one plot reads well in light and dark. Labels come
from model and file names, so nothing in them is read as markup or mathematics.
"""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("Agg")

# placeholder -> CSS; the variables are set in report.html.jinja
INK, GRID = "#010101", "#020202"
SERIES = tuple(f"#0303{n:02d}" for n in range(1, 7))
_COLOURS = {INK: "var(--ink)", GRID: "var(--line)"} | {
    colour: f"var(--series-{n})" for n, colour in enumerate(SERIES, start=1)
}
WIDTH = 12.0  # inches; with the outer margins cut this fills the page
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element; `name` keeps its ids apart from those of other plots on the page."""
    text = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for placeholder, css in _COLOURS.items():
        svg = svg.replace(placeholder, css)
    return svg


def grid(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
