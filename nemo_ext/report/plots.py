"""The report's plots: accuracy, ablations, training, levels, checkpoints."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nemo_ext.evaluation.model_names import is_checkpoint
from nemo_ext.report.figure import INK, SERIES, STYLE, WIDTH, grid, svg


def accuracy(rows: Sequence[dict[str, Any]]) -> str:
    """Grouped bars, one group per benchmark and one colour per model, with the interval [low, high] as a whisker.

    rows: {model, benchmark, accuracy, low, high}, shares in 0..1.
    """
    rows = with_a_colour(rows)
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    width = 0.8 / len(models)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(WIDTH, 1.2 + 0.55 * len(models) * len(benchmarks) + len(benchmarks)), 3.6))
        axes = figure.add_subplot()
        grid(axes)
        for number, model in enumerate(models):
            for row in (row for row in rows if row["model"] == model):
                place = benchmarks.index(row["benchmark"]) + (number - (len(models) - 1) / 2) * width
                _bar(axes, row, place, width * 0.86, SERIES[number % len(SERIES)])
            axes.bar(0, 0, color=SERIES[number % len(SERIES)], label=model)
        axes.set_xticks(range(len(benchmarks)), benchmarks)
        axes.set_xlim(-0.6, len(benchmarks) - 0.4)
        axes.set_ylim(0, min(108.0, 12 + max(100 * row["high"] for row in rows)))
        axes.set_ylabel("correct, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(4, len(models)), borderaxespad=0.2)
    return svg(figure, "accuracy")


def with_a_colour(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The models that get a colour: where there are too many, checkpoints are left out, as they have a plot of their own."""
    if len({row["model"] for row in rows}) <= len(SERIES):
        return rows
    return [row for row in rows if not is_checkpoint(row["model"])] or rows


def _bar(axes: Axes, row: dict[str, Any], place: float, width: float, colour: str) -> None:
    value = 100 * row["accuracy"]
    whisker = [[max(0.0, value - 100 * row["low"])], [max(0.0, 100 * row["high"] - value)]]
    axes.bar(place, value, width, color=colour)
    axes.errorbar(place, value, whisker, color=INK, capsize=3, linewidth=1.1)
    axes.annotate(f"{value:.1f}", (place, 100 * row["high"]), (0, 4), textcoords="offset points", ha="center", size=10)


def ablation(shown: dict[str, Any]) -> str:
    """Accuracy of models against what was varied between them, a line per series; published values as hollow points.

    shown: {x: label, log: bool, points: [{model, x, series, accuracy, low, high, published}]}; accuracy, low and high in
    0..1, published in percent or None. Points without an x stand beside each other under their names.
    """
    points = shown["points"]
    names = list(dict.fromkeys(point["model"] for point in points))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8))
        axes = figure.add_subplot()
        grid(axes)
        several = len({point["series"] for point in points}) > 1
        for number, series in enumerate(dict.fromkeys(point["series"] for point in points)):
            mine = [point for point in points if point["series"] == series]
            placed = [(names.index(p["model"]) if p["x"] is None else p["x"], p) for p in mine]
            _line(axes, placed, SERIES[number % 6], series)
            _published(axes, placed, SERIES[number % 6] if several else INK)
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
    return svg(figure, "ablation")


def _line(axes: Axes, placed: list[tuple[float, dict[str, Any]]], colour: str, label: str) -> None:
    values = [100 * point["accuracy"] for _, point in placed]
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


def _published(axes: Axes, placed: list[tuple[float, dict[str, Any]]], colour: str) -> None:
    """Hollow points in the colour of their series, and one entry of the legend for all."""
    published = [(place, point["published"]) for place, point in placed if point["published"] is not None]
    if published:
        label = "_" if "published" in axes.get_legend_handles_labels()[1] else "published"
        axes.plot(*zip(*published, strict=True), "D", markerfacecolor="none", color=colour, label=label)


def training(curves: dict[str, Any]) -> str:
    """Loss over steps, with validation points when there are any, above the learning rate and the objective's figures.

    curves: {steps, loss, lr: equally long lists; validation: [{step, loss}]; figures: {name: {training, validation:
    [{step, value}]}}}; lr, validation and figures may be missing.
    """
    has_lr, reported = bool(curves.get("lr")), curves.get("figures", {})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, (4.8 if has_lr else 3.4) + 1.4 * len(reported)))
        ratios = [3, *([1] * (has_lr + len(reported)))]
        panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)
        loss = panels[0][0]
        grid(loss)
        loss.plot(curves["steps"], curves["loss"], color=SERIES[0], linewidth=1.6, label="training")
        if curves.get("validation"):
            steps, losses = zip(*((point["step"], point["loss"]) for point in curves["validation"]), strict=True)
            loss.plot(steps, losses, color=SERIES[1], marker="o", markersize=5, linewidth=1.4, label="validation")
            loss.legend(loc="upper right")
        loss.set_ylabel("loss")
        if has_lr:
            rate = panels[1][0]
            grid(rate)
            rate.plot(curves["steps"], curves["lr"], color=SERIES[2], linewidth=1.6)
            rate.set_ylim(bottom=0)
            rate.set_ylabel("learning rate")
            rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        for panel, (name, points) in zip(panels[1 + has_lr :], reported.items(), strict=True):
            _figure_panel(panel[0], name, points)
        panels[-1][0].set_xlabel("step")
        figure.align_ylabels()
    return svg(figure, "training")


def _figure_panel(axes: Axes, name: str, points: dict[str, list[dict[str, Any]]]) -> None:
    grid(axes)
    for side, colour, marker in (("training", SERIES[0], ""), ("validation", SERIES[1], "o")):
        steps, values = ([point[key] for point in points[side]] for key in ("step", "value"))
        axes.plot(steps, values, color=colour, marker=marker, markersize=5, linewidth=1.4)
    axes.set_ylabel(name.replace("_", " "))


def checkpoints(shown: dict[str, Any]) -> str:
    """Accuracy over all benchmarks against the training step, and the average of the checkpoints as a band.

    shown: {points: [{step, accuracy, low, high}], average: {accuracy, low, high} or None}; shares in 0..1.
    """
    points, average = shown["points"], shown["average"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4))
        axes = figure.add_subplot()
        grid(axes)
        steps, values = [p["step"] for p in points], [100 * p["accuracy"] for p in points]
        below = [max(0.0, 100 * (p["accuracy"] - p["low"])) for p in points]
        above = [max(0.0, 100 * (p["high"] - p["accuracy"])) for p in points]
        axes.errorbar(steps, values, [below, above], color=SERIES[0], marker="o", capsize=3, label="checkpoint")
        if average is not None:
            axes.axhspan(100 * average["low"], 100 * average["high"], color=SERIES[2], alpha=0.15, linewidth=0)
            axes.axhline(100 * average["accuracy"], color=SERIES[2], linewidth=1.6, label="their average")
        axes.set_xticks(steps, [f"{step:,}" for step in steps])
        axes.set_xlabel("step")
        axes.set_ylabel("correct, %")
        axes.legend(loc="best")
    return svg(figure, "checkpoints")


def breakdown(groups: Sequence[dict[str, Any]]) -> str:
    """Bars for each level or subject, a colour per model, a panel per benchmark and kind of group.

    groups: [{benchmark, kind, labels: [...], models: {name: [{accuracy, low, high} or None, one per label]}}]
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1 * len(groups)), layout="constrained")
        for axes, group in zip(figure.subplots(len(groups), 1, squeeze=False)[:, 0], groups, strict=True):
            grid(axes)
            width = 0.8 / len(group["models"])
            for number, (model, values) in enumerate(group["models"].items()):
                colour = SERIES[number % len(SERIES)]
                for place, value in enumerate(values):
                    if value is not None:
                        at = place + (number - (len(group["models"]) - 1) / 2) * width
                        share = 100 * value["accuracy"]
                        whisker = [[max(0.0, share - 100 * value["low"])], [max(0.0, 100 * value["high"] - share)]]
                        axes.bar(at, share, width * 0.86, color=colour)
                        axes.errorbar(at, share, whisker, color=INK, capsize=2, linewidth=1)
                axes.bar(0, 0, color=colour, label=model)
            labels = [f"level {label}" if group["kind"] == "level" else label for label in group["labels"]]
            turned = {"rotation": 20, "ha": "right"} if max(map(len, labels)) * len(labels) > 90 else {}
            axes.set_xticks(range(len(labels)), labels, **turned)
            axes.set_ylim(0, 105)
            axes.set_title(group["benchmark"], loc="left", fontsize=11)
            axes.set_ylabel("correct, %")
        figure.axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=4, borderaxespad=0.2)
    return svg(figure, "breakdown")
