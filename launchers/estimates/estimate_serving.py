"""Estimate the stages that ask a model: completions, at the rates that are published."""

from collections import Counter
from pathlib import Path

from launchers.planning.plan import PlannedStage
from nemo_ext.records.manifest import DONE
from nemo_ext.rows.outside.read import read_any
from nemo_ext.rows.row import input_files
from recipes.asking.strategies import OTHERS
from recipes.work import Asking, Writing

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

ROWS = {
    "math": 7500, "gsm8k": 7473, "augmented_math": 569_000, "augmented_gsm8k": 73_600,
    "Algebra": 1744, "Counting & Probability": 771, "Geometry": 870, "Intermediate Algebra": 1295, "Number Theory": 869,
    "Prealgebra": 1205, "Precalculus": 746,
}  # fmt: skip
"""problem_source or subject -> problems, where the input is not there yet: the published training splits, and the new
problems that OpenMathInstruct-2 reports (MATH-like ones before decontamination)."""


def rate(hf_path: str, gpu: str | None, gpus: int) -> int | None:
    """Published output tokens/s of one server of that model; None when there is none for these GPUs."""
    name = Path(hf_path).name.removeprefix("Meta-")
    for (model, kind, count), tokens in RATES.items():
        if f"{name}-".startswith(f"{model}-") and (kind, count) == (gpu, gpus):
            return tokens
    return None


def completions(stage: PlannedStage, stages: list[PlannedStage]) -> tuple[int | None, str]:
    """How many a stage asks for, over all its tasks, and what that rests on; None: unknown, and why."""
    total, why = 0, ""
    for task in stage.differing_tasks:
        assert isinstance(task.work, Asking), "its stage asks"
        if task.work.input is None:
            return None, "how much it asks depends on its rows"
        for way in (task.work, *task.work.others):
            count, why = _of_task(way, _written(task.work.input, stages), len(stage.tasks))
            if count is None:
                return None, why
            total += count
    return total, why


def _of_task(asking: Asking, written: Writing | None, num_tasks: int) -> tuple[int | None, str]:
    """The same of one task; `written`: what the plan says of its input."""
    found = _rows(str(asking.input), asking.by) if written is None else Counter({"": written.num_rows or 0})
    if written is not None and written.num_rows is None:
        return None, f"how many {asking.rows_are} there will be"
    total = 0
    for source, samples in asking.samples.items():
        rows: int | None
        if samples == 0:
            continue
        if found is not None and source == OTHERS:
            rows = sum(count for name, count in found.items() if name not in asking.samples)
        else:
            rows = found[source] if found is not None else ROWS.get(source)
        if rows is None:
            return None, f"how many {asking.rows_are}{'' if source == OTHERS else f' of {source}'} there will be"
        total += rows * samples
    if written is None:
        return total, "rows of its input" if found is not None else "published row counts"
    samples = asking.samples.get(OTHERS, 0)
    each = f"{samples} samples x " if samples > 1 else ""
    return total, f"{written.num_rows:,} {asking.rows_are} x {each}{num_tasks} models"


def _written(folder: str, stages: list[PlannedStage]) -> Writing | None:
    """What the stage that writes `folder` says of its rows."""
    works = (task.work for stage in stages for task in stage.differing_tasks if str(task.folder) == folder)
    return next((work for work in works if isinstance(work, Writing)), None)


def _rows(source: str, by: str) -> Counter[str] | None:
    """Rows by what they have in the column `by`: of a file, or of a stage's folder; None while that has not finished."""
    path = Path(source)
    if not (path.is_file() or (path / DONE).is_file()):
        return None
    rows = (row for file in input_files(path) for row in read_any(file))
    return Counter(str(row.get(by)) for row in rows if isinstance(row, dict))
