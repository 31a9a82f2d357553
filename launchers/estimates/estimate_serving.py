"""Estimate the stages that ask a model: completions, at the rates that are published."""

from collections import Counter
from pathlib import Path
from typing import Any

from launchers.planning.plan import PlannedStage
from nemo_ext.records.manifest import DONE
from nemo_ext.rows.outside.read import read_any
from nemo_ext.rows.row import input_files
from recipes.asking.sampling import OTHERS

COMPLETION_TOKENS = 500
"""Assumed of a completion. Solutions of OpenMathInstruct-2's teacher have 237 tokens on average in its own format and 331
in Llama's; those that fail are longer."""

RATES: dict[tuple[str, str, int], int] = {
    ("Llama-3.1-405B", "h100", 8): 2919,
    ("Llama-3.1-405B", "h200", 8): 3330,
    ("Llama-3.1-70B", "h100", 2): 4146,
    ("Llama-3.1-70B", "h200", 1): 2994,
    ("Llama-3.1-8B", "h100", 1): 13899,
    ("Llama-3.1-8B", "h200", 1): 16828,
}
"""(model, GPU kind, GPUs of a server) -> output tokens/s of all requests together. TensorRT-LLM 1.0's performance overview:
FP8, offline, at full load; 1000 tokens in and 1000 out (405B) or 2000 out (8B; 70B, measured on Llama-3.3-70B)."""

ROWS = {"math": 7500, "gsm8k": 7473, "augmented_math": 569_000, "augmented_gsm8k": 73_600}
"""problem_source -> problems, where the input is not there yet: the published training splits, and the new problems that
OpenMathInstruct-2 reports (MATH-like ones before decontamination)."""


def rate(hf_path: str, gpu: str | None, gpus: int) -> int | None:
    """Published output tokens/s of one server of that model; None when there is none for these GPUs."""
    name = Path(hf_path).name.removeprefix("Meta-")
    for (model, kind, count), tokens in RATES.items():
        if f"{name}-".startswith(f"{model}-") and (kind, count) == (gpu, gpus):
            return tokens
    return None


def completions(stage: PlannedStage, stages: list[PlannedStage]) -> tuple[int | None, str]:
    """How many a stage asks for, over all its tasks, and what that rests on; None: unknown, and why."""
    content = stage.tasks[0].content
    if stage.uses == "evaluate":
        problems = _problems(content["benchmarks"], stages)
        if problems is None:
            return None, "how many problems its benchmarks have"
        samples = content["num_samples"]
        each = f"{samples} samples x " if samples > 1 else ""
        return problems * samples * len(stage.tasks), f"{problems:,} problems x {each}{len(stage.tasks)} models"
    if stage.uses != "generate":
        return None, "how much it asks depends on its rows"
    found = _rows(content["input"])
    total = 0
    for source, asked in content["by_source"].items():
        rows: int | None
        if found is not None and source == OTHERS:
            rows = sum(count for name, count in found.items() if name not in content["by_source"])
        else:
            rows = found[source] if found is not None else ROWS.get(source)
        if rows is None:
            return None, f"how many rows of {source} there will be"
        total += rows * asked["num_samples"]
    return total, "rows of its input" if found is not None else "published row counts"


def _problems(folder: str, stages: list[PlannedStage]) -> int | None:
    """Problems of the prepare_benchmarks stage that writes `folder`."""
    for stage in stages:
        if stage.uses == "prepare_benchmarks" and stage.tasks[0].content["output_dir"] == folder:
            counts: list[Any] = [each["num_rows"] for each in stage.tasks[0].content["benchmarks"].values()]
            return None if None in counts else sum(counts)
    return None


def _rows(source: str) -> Counter[str] | None:
    """Rows by problem_source of a file, or of a stage's folder; None while that has not finished."""
    path = Path(source)
    if not (path.is_file() or (path / DONE).is_file()):
        return None
    rows = (row for file in input_files(path) for row in read_any(file))
    return Counter(str(row.get("problem_source")) for row in rows if isinstance(row, dict))
