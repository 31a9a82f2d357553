"""The report's sections about a run's stages: warnings, rows, training, resources, lineage."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nemo_ext.evaluation.model_names import is_checkpoint
from nemo_ext.records import manifest
from nemo_ext.report.run_folder import Finished, manifests, rows
from nemo_ext.report.score_sections import overall

SAMPLE_ROWS = 3
DECONTAMINATION_EXAMPLES = 5
FROM_CHECKPOINTS = ("average", "export_hf")


def warnings(finished: Finished, found: dict[str, dict[str, Any]]) -> list[str]:
    """What a reader must know before the figures: another prompt in training, tiny models, nothing solved."""
    notes = []
    records = [each for _, each in manifests(finished)]
    models = set(found).union(*(each["models"] for each in records))
    trained, evaluated = _trained_with(records), _evaluated_with(records)
    if trained and (other := evaluated.keys() - trained.keys()):
        asked, known = (
            ", ".join(sorted(set(names))) for names in ([evaluated[key] for key in other], trained.values())
        )
        notes.append(
            f"The prompt of the evaluation ({asked}) is not the one the model was fine-tuned with ({known})"
            + (": they have one name and other texts." if asked == known else ".")
        )
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


def out_of_date(finished: Finished) -> list[str]:
    """Stages whose results rest on something that is no longer there: beside newer ones they would mislead."""
    reasons = {name: manifest.inputs_changed(folder) for name, folder in finished.items()}
    return [
        f"{name} was made before its inputs changed, and is shown as it was: {reason}."
        for name, reason in reasons.items()
        if reason
    ]


def _evaluated_with(records: list[dict[str, Any]]) -> dict[str, str]:
    """Prompts, hash -> name, of the evaluations of models that were trained; a teacher has its own."""
    trained = {name for each in records if each["uses"] in FROM_CHECKPOINTS for name in each["models"]}
    asked = [each for each in records if each["uses"] == "evaluate"]
    ours = [each for each in asked if not trained or trained & each["models"].keys()]
    return {key: name for each in ours for name, key in each["prompts"].items()}


def _trained_with(records: list[dict[str, Any]]) -> dict[str, str]:
    """Prompts, hash -> name, that the data was prepared with: in this run, or where its checkpoints were trained."""
    found = {key: name for each in records if each["uses"] == "prepare_sft" for name, key in each["prompts"].items()}
    paths = {Path(source["path"]) for each in records if each["uses"] in FROM_CHECKPOINTS for source in each["inputs"]}
    # <train>/checkpoints/<step>/<file>
    for config in {path.parents[2] / "config.yaml" for path in paths if path.parent.parent.name == "checkpoints"}:
        data = OmegaConf.select(OmegaConf.load(config), "data") if config.is_file() else None
        if data is not None and (Path(data) / manifest.MANIFEST).is_file():
            found |= {key: name for name, key in manifest.read(Path(data))["prompts"].items()}
    return found


def summary(finished: Finished, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    cards = []
    for model, each in found.items():
        if is_checkpoint(model):
            continue
        correct = sum(score["correct"] for score in each["benchmarks"].values())
        total = sum(score["total"] for score in each["benchmarks"].values())
        scored = overall(each)
        several = f" answers right, to {scored['problems']:,} problems" if total != scored["problems"] else " solved"
        note = f"{correct:,} of {total:,}{several}"
        cards.append({"label": model, "value": f"{100 * scored['accuracy']:.1f} %", "note": note})
    for name, each in manifests(finished):
        if each["uses"] == "prepare_sft":
            tokens = each["tokens"].get("trained", 0)
            cards.append(
                {"label": f"{name}: samples", "value": f"{each['rows_out']:,}", "note": f"{tokens:,} trained tokens"}
            )
    return cards


def training(finished: Finished) -> dict[str, Any] | None:
    """Curves of the run's train_sft stage."""
    for name, each in manifests(finished):
        if each["uses"] == "train_sft":
            with (finished[name] / "metrics.jsonl").open() as handle:
                lines = [json.loads(line) for line in handle]
            steps = [line for line in lines if line.get("loss") is not None]  # null: a bad step that was left out
            curves: dict[str, Any] = {key: [line[key] for line in steps] for key in ("loss", "lr")}
            held_out = [{"step": x["step"], "loss": x["validation_loss"]} for x in lines if "validation_loss" in x]
            figures = objective_figures(lines)
            return {"steps": [line["step"] for line in steps], **curves, "validation": held_out, "figures": figures}
    return None


def objective_figures(lines: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """{"reward_margin": {"training": [{"step", "value"}], "validation": [...]}} of what an objective reports."""
    figures: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for line in lines:
        side = "validation" if "validation_loss" in line else "training"
        for name, value in line.get("figures", {}).items():
            points = figures.setdefault(name, {"training": [], "validation": []})
            points[side].append({"step": line["step"], "value": value})
    return figures


def funnel(finished: Finished) -> list[dict[str, Any]]:
    return [
        {key: each.get(key) for key in ("rows_in", "rows_made", "rows_out", "dropped")} | {"stage": name}
        for name, each in manifests(finished)
        if each["rows_in"] is not None and each["uses"] != "evaluate"
    ]


def decontamination(finished: Finished) -> dict[str, Any] | None:
    for name, each in manifests(finished):
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
    for row in (row for path in sorted(folder.glob("dropped*.jsonl")) for row in rows(path)):
        if "contamination" in row and row["problem"] not in seen:
            seen.add(row["problem"])
            yield row


def samples(finished: Finished) -> list[dict[str, Any]]:
    """A few rows as they left each stage; one evaluation stands for all."""
    shown, uses = [], set()
    for name, each in manifests(finished):
        file = next(iter(sorted(finished[name].glob("output*.jsonl"))), None)
        if file and not (each["uses"] == "evaluate" and "evaluate" in uses):
            shown.append({"stage": name, "rows": list(islice(rows(file), SAMPLE_ROWS))})
        uses.add(each["uses"])
    return shown


def resources(finished: Finished) -> list[dict[str, Any]]:
    listed = []
    for name, each in manifests(finished):
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


def lineage(finished: Finished) -> list[dict[str, Any]]:
    keys = ("config_hash", "code_version", "inputs", "outputs", "models", "seeds")
    return [{"stage": name, **{key: each[key] for key in keys}} for name, each in manifests(finished)]


def explorers(root: Path, finished: Finished) -> list[dict[str, str]]:
    """Browsable pages of the run, by their place beside the report."""
    pages = [(name, finished[name] / "index.html") for name, each in manifests(finished) if each["uses"] == "explore"]
    return [{"stage": name, "page": page.relative_to(root).as_posix()} for name, page in pages if page.is_file()]
