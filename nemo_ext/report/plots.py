"""Plots as SVG text to be put inside the report's page.

Colours are drawn as placeholders and replaced by CSS variables, so one plot reads well in light and dark. Labels come
from model and file names, so nothing in them is read as markup or mathematics.
"""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("Agg")

# placeholder -> CSS; the variables are set in report.html.jinja
_INK, _GRID = "#010101", "#020202"
_SERIES = tuple(f"#0303{n:02d}" for n in range(1, 7))
_COLOURS = {_INK: "var(--ink)", _GRID: "var(--line)"} | {
    colour: f"var(--series-{n})" for n, colour in enumerate(_SERIES, start=1)
}
_WIDTH = 12.0  # inches; with the outer margins cut this fills the page
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element; `name` keeps its ids apart from those of other plots on the page."""
    text = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for placeholder, css in _COLOURS.items():
        svg = svg.replace(placeholder, css)
    return svg


def _grid(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)


def accuracy(rows: Sequence[dict[str, Any]]) -> str:
    """Grouped bars, one group per benchmark and one colour per model, with the interval [low, high] as a whisker.

    rows: {model, benchmark, correct, total, low, high}, low and high in 0..1.
    """
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    width = 0.8 / len(models)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(_WIDTH, 1.2 + 0.55 * len(models) * len(benchmarks) + len(benchmarks)), 3.6))
        axes = figure.add_subplot()
        _grid(axes)
        for number, model in enumerate(models):
            for row in (row for row in rows if row["model"] == model):
                place = benchmarks.index(row["benchmark"]) + (number - (len(models) - 1) / 2) * width
                _bar(axes, row, place, width * 0.86, _SERIES[number % len(_SERIES)])
            axes.bar(0, 0, color=_SERIES[number % len(_SERIES)], label=model)
        axes.set_xticks(range(len(benchmarks)), benchmarks)
        axes.set_xlim(-0.6, len(benchmarks) - 0.4)
        axes.set_ylim(0, min(108.0, 12 + max(100 * row["high"] for row in rows)))
        axes.set_ylabel("correct, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(4, len(models)), borderaxespad=0.2)
    return _svg(figure, "accuracy")


def _bar(axes: Axes, row: dict[str, Any], place: float, width: float, colour: str) -> None:
    value = 100 * row["correct"] / row["total"] if row["total"] else 0.0
    whisker = [[max(0.0, value - 100 * row["low"])], [max(0.0, 100 * row["high"] - value)]]
    axes.bar(place, value, width, color=colour)
    axes.errorbar(place, value, whisker, color=_INK, capsize=3, linewidth=1.1)
    axes.annotate(f"{value:.1f}", (place, 100 * row["high"]), (0, 4), textcoords="offset points", ha="center", size=10)


def ablation(shown: dict[str, Any]) -> str:
    """Accuracy of models against what was varied between them, a line per series; published values as hollow points.

    shown: {x: label, log: bool, points: [{model, x, series, correct, total, low, high, published}]}; low and high in
    0..1, published in percent or None. Points without an x stand beside each other under their names.
    """
    points = shown["points"]
    names = list(dict.fromkeys(point["model"] for point in points))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 3.8))
        axes = figure.add_subplot()
        _grid(axes)
        for number, series in enumerate(dict.fromkeys(point["series"] for point in points)):
            mine = [point for point in points if point["series"] == series]
            _line(
                axes,
                [(names.index(p["model"]) if p["x"] is None else p["x"], p) for p in mine],
                _SERIES[number % 6],
                series,
            )
        if points[0]["x"] is None:
            axes.set_xticks(range(len(names)), names)
            axes.set_xlim(-0.6, len(names) - 0.4)
        elif shown["log"]:
            axes.set_xscale("log")
            places = sorted({point["x"] for point in points})
            axes.set_xticks(places, [f"{place:,.0f}" for place in places])
            axes.minorticks_off()
        axes.set_xlabel(shown["x"])
        axes.set_ylabel("correct, %")
        axes.set_ylim(bottom=0)
        if any(point["series"] for point in points) or any(point["published"] is not None for point in points):
            axes.legend(loc="best")
    return _svg(figure, "ablation")


def _line(axes: Axes, placed: list[tuple[float, dict[str, Any]]], colour: str, label: str) -> None:
    values = [100 * point["correct"] / point["total"] if point["total"] else 0.0 for _, point in placed]
    below = [max(0.0, value - 100 * point["low"]) for value, (_, point) in zip(values, placed, strict=True)]
    above = [max(0.0, 100 * point["high"] - value) for value, (_, point) in zip(values, placed, strict=True)]
    joined = "-" if placed[0][1]["x"] is not None else "none"
    places = [place for place, _ in placed]
    axes.errorbar(
        places,
        values,
        [below, above],
        color=colour,
        marker="o",
        linestyle=joined,
        capsize=3,
        label=label or "this run",
    )
    for place, value in zip(places, values, strict=True):
        axes.annotate(f"{value:.1f}", (place, value), (7, 5), textcoords="offset points", size=10)
    published = [(place, point["published"]) for place, point in placed if point["published"] is not None]
    if published:
        axes.plot(*zip(*published, strict=True), "D", markerfacecolor="none", color=_INK, label="published")


def training(curves: dict[str, Any]) -> str:
    """Loss over steps, with validation points when there are any, above the learning rate.

    curves: {steps, loss, lr: equally long lists; validation: [{step, loss}]}; lr and validation may be missing.
    """
    has_lr = bool(curves.get("lr"))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 4.8 if has_lr else 3.4))
        panels = figure.subplots(2 if has_lr else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 1][: 1 + has_lr])
        loss = panels[0][0]
        _grid(loss)
        loss.plot(curves["steps"], curves["loss"], color=_SERIES[0], linewidth=1.6, label="training")
        if curves.get("validation"):
            steps, losses = zip(*((point["step"], point["loss"]) for point in curves["validation"]), strict=True)
            loss.plot(steps, losses, color=_SERIES[1], marker="o", markersize=5, linewidth=1.4, label="validation")
            loss.legend(loc="upper right")
        loss.set_ylabel("loss")
        if has_lr:
            rate = panels[1][0]
            _grid(rate)
            rate.plot(curves["steps"], curves["lr"], color=_SERIES[2], linewidth=1.6)
            rate.set_ylim(bottom=0)
            rate.set_ylabel("learning rate")
            rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        panels[-1][0].set_xlabel("step")
        figure.align_ylabels()
    return _svg(figure, "training")
