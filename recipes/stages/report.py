"""Gather a run's manifests, rows and scores into one self-contained page.

In:  every finished stage of the run folder
Out: <run>/report.html
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from nemo_ext import manifest
from nemo_ext.manifest import Facts
from recipes.stage import Stage

SAMPLE_ROWS = 3
DECONTAMINATION_EXAMPLES = 5


@dataclass(kw_only=True)
class PaperValue:
    key: str = MISSING
    """<stage>.<key of its config>."""
    value: Any = MISSING
    source: str = MISSING
    """Where the value is published."""


@dataclass(kw_only=True)
class Point:
    """One model of an ablation."""

    model: str = MISSING
    x: float | None = None
    """Where on the axis; None: beside the others, under its name."""
    series: str = ""
    published: float | None = None
    """Accuracy in percent, as published."""


@dataclass(kw_only=True)
class Ablation:
    """What a recipe varies, and the models that differ in it."""

    x: str = MISSING
    """The axis."""
    log: bool = False
    points: list[Point] = field(default_factory=list)
    rows_of: str | None = None
    """Stage whose variants, named as the models, have so many rows: they are the axis."""
    source: str = ""
    """Where the published values are from."""


@dataclass(kw_only=True)
class Config(Stage):
    title: str = MISSING
    run_dir: str = MISSING
    paper: list[PaperValue] = field(default_factory=list)
    """Published settings this run is compared with."""
    ablation: Ablation | None = None


def run(cfg: Config) -> Facts:
    from nemo_ext.report.render import render

    root = Path(cfg.run_dir)
    finished = stages(root)
    found = scores(finished)
    sections = {
        "title": cfg.title,
        "subtitle": f"{root.name}, code {manifest.code_version()}",
        "warnings": warnings(finished, found),
        "summary": None if cfg.ablation else summary(finished, found),  # the figure and its table say it all
        "ablation": ablation(cfg.ablation, finished, found),
        "accuracy": accuracy(found),
        "training": training(finished),
        "funnel": funnel(finished),
        "decontamination": decontamination(finished),
        "samples": samples(finished),
        "resources": resources(finished),
        "differences": differences(root, cfg.paper),
        "lineage": lineage(finished),
    }
    out = root / "report.html"
    render(sections, out)
    inputs = [folder / manifest.MANIFEST for folder in finished.values()]
    return Facts(inputs=inputs, outputs=[out], figures={"report": str(out)})


def stages(root: Path) -> dict[str, Path]:
    """`stage` or `stage/task` -> its folder, in the order they finished; results set aside by redo=true are not part."""
    folders = [p.parent for pattern in ("*", "*/*") for p in root.glob(f"{pattern}/{manifest.DONE}")]
    current = [f for f in folders if not re.search(r"\.old\d+(/|$)", str(f.relative_to(root)))]
    current.sort(key=lambda folder: (folder / manifest.DONE).stat().st_mtime_ns)
    return {str(folder.relative_to(root)): folder for folder in current}


def _manifests(finished: dict[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, folder in finished.items():
        yield name, manifest.read(folder)


def scores(finished: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Model name -> scores.json of its evaluation."""
    files = [folder / "scores.json" for folder in finished.values()]
    loaded = [json.loads(file.read_text()) for file in files if file.is_file()]
    return {each["model"]: each for each in sorted(loaded, key=lambda each: _model_order(each["model"]))}


def _model_order(name: str) -> tuple[int, str]:
    """Checkpoints in the middle: base, checkpoints, average, teacher."""
    rank = 1 if name.startswith("checkpoint_") else 2 if name == "average" else 3 if "teacher" in name else 0
    return rank, name


def accuracy(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("correct", "total", "low", "high", "no_answer", "truncated")
    return [
        {"model": model, "benchmark": name, **{key: score[key] for key in keys}}
        for model, each in found.items()
        for name, score in each["benchmarks"].items()
    ]


def ablation(
    asked: Ablation | None, finished: dict[str, Path], found: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Each model's score over all benchmarks, against what was varied."""
    from nemo_ext.evaluation.stats import wilson

    if asked is None:
        return None
    rows = {name: each["rows_out"] for name, each in _manifests(finished)}
    points = []
    for point in asked.points:
        if point.model not in found:
            continue
        scored = found[point.model]["benchmarks"].values()
        correct, total = (sum(score[key] for score in scored) for key in ("correct", "total"))
        low, high = wilson(correct, total)
        x = rows.get(f"{asked.rows_of}/{point.model}") if asked.rows_of else point.x
        told = {"model": point.model, "x": x, "series": point.series, "published": point.published}
        points.append(told | {"correct": correct, "total": total, "low": low, "high": high})
    return {"x": asked.x, "log": asked.log, "source": asked.source, "points": points} if points else None


def warnings(finished: dict[str, Path], found: dict[str, dict[str, Any]]) -> list[str]:
    """What a reader must know before the figures: incomparable scores, another prompt in training, tiny models."""
    from nemo_ext.evaluation.contract import Contract, compare

    notes = []
    contracts = [(name, Contract.from_dict(each["contract"])) for name, each in found.items()]
    for name, contract in contracts[1:]:
        try:
            compare(contracts[0][1], contract)
        except ValueError as error:
            notes.append(f"{contracts[0][0]} and {name}: {error}")
    by_use: dict[str, set[str]] = defaultdict(set)
    models = set(found)
    for _, each in _manifests(finished):
        by_use[each["uses"]].update(each["prompts"].values())
        models |= each["models"].keys()
    if by_use["prepare_sft"] and by_use["evaluate"] and by_use["prepare_sft"] != by_use["evaluate"]:
        notes.append("The prompt of the evaluation is not the one the model was fine-tuned with.")
    if any(name.startswith("tiny") for name in models):
        notes.append(
            "A run at tiny scale: it shows that everything works, and its scores say nothing about the published models."
        )
    zero = [
        name for name, each in found.items() if all(score["correct"] == 0 for score in each["benchmarks"].values())
    ]
    if zero:
        notes.append(f"No problem solved by: {', '.join(zero)}.")
    return notes


def summary(finished: dict[str, Path], found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    cards = []
    for model, each in found.items():
        if model.startswith("checkpoint_"):
            continue
        correct = sum(score["correct"] for score in each["benchmarks"].values())
        total = sum(score["total"] for score in each["benchmarks"].values())
        cards.append(
            {"label": model, "value": f"{100 * correct / total:.1f} %", "note": f"{correct} of {total} solved"}
        )
    for name, each in _manifests(finished):
        if each["uses"] == "prepare_sft":
            tokens = each["tokens"].get("trained", 0)
            cards.append(
                {"label": f"{name}: samples", "value": f"{each['rows_out']:,}", "note": f"{tokens:,} trained tokens"}
            )
    return cards


def training(finished: dict[str, Path]) -> dict[str, Any] | None:
    """Curves of the run's train_sft stage."""
    for name, each in _manifests(finished):
        if each["uses"] == "train_sft":
            with (finished[name] / "metrics.jsonl").open() as handle:
                lines = [json.loads(line) for line in handle]
            steps = [line for line in lines if line.get("loss") is not None]  # null: a bad step that was left out
            curves: dict[str, Any] = {key: [line[key] for line in steps] for key in ("loss", "lr")}
            held_out = [{"step": x["step"], "loss": x["validation_loss"]} for x in lines if "validation_loss" in x]
            return {"steps": [line["step"] for line in steps], **curves, "validation": held_out}
    return None


def funnel(finished: dict[str, Path]) -> list[dict[str, Any]]:
    return [
        {"stage": name, "rows_in": each["rows_in"], "rows_out": each["rows_out"], "dropped": each["dropped"]}
        for name, each in _manifests(finished)
        if each["rows_in"] is not None and each["uses"] != "evaluate"
    ]


def decontamination(finished: dict[str, Path]) -> dict[str, Any] | None:
    for name, each in _manifests(finished):
        if each["uses"] != "decontaminate":
            continue
        figures = each["figures"]
        dropped = list(islice(_distinct_problems(finished[name]), DECONTAMINATION_EXAMPLES))
        hits = {
            benchmark: {"contaminated": count, "checked": figures["problems"]}
            for benchmark, count in figures["by_benchmark"].items()
        }
        known = {key: figures[key] for key in ("recall", "precision") if figures.get(key) is not None}
        return {
            **hits,
            **known,
            "examples": [{"problem": r["problem"], "restates": r["contamination"]} for r in dropped],
        }
    return None


def _distinct_problems(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows that a stage dropped for their problem, the first of each."""
    seen = set()
    for row in (row for path in sorted(folder.glob("dropped*.jsonl")) for row in _rows(path)):
        if "contamination" in row and row["problem"] not in seen:
            seen.add(row["problem"])
            yield row


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as handle:
        for line in handle:
            yield json.loads(line)


def samples(finished: dict[str, Path]) -> list[dict[str, Any]]:
    """A few rows as they left each stage; one evaluation stands for all."""
    shown, uses = [], set()
    for name, each in _manifests(finished):
        file = next(iter(sorted(finished[name].glob("output*.jsonl"))), None)
        if file and not (each["uses"] == "evaluate" and "evaluate" in uses):
            shown.append({"stage": name, "rows": list(islice(_rows(file), SAMPLE_ROWS))})
        uses.add(each["uses"])
    return shown


def resources(finished: dict[str, Path]) -> list[dict[str, Any]]:
    listed = []
    for name, each in _manifests(finished):
        usage = finished[name] / "usage.json"
        peak = json.loads(usage.read_text())["peak_memory_bytes"] / 2**30 if usage.is_file() else None
        listed.append(
            {
                "stage": name,
                "seconds": each["seconds"],
                "prompt_tokens": each["tokens"].get("prompt"),
                "generated_tokens": each["tokens"].get("generated"),
                "peak_memory_gb": peak,
            }
        )
    return listed


def differences(root: Path, paper: list[PaperValue]) -> list[dict[str, Any]]:
    """Where this run's settings are not the published ones."""
    listed = []
    for published in paper:
        stage, _, key = published.key.partition(".")
        config = root / stage / "config.yaml"
        ours = OmegaConf.select(OmegaConf.load(config), key) if config.is_file() else None
        if ours != published.value:
            listed.append({"key": published.key, "ours": ours, "paper": published.value, "source": published.source})
    return listed


def lineage(finished: dict[str, Path]) -> list[dict[str, Any]]:
    keys = ("config_hash", "code_version", "inputs", "outputs", "models", "seeds")
    return [{"stage": name, **{key: each[key] for key in keys}} for name, each in _manifests(finished)]
