"""scores.json of an evaluation folder: which model, under which contract, and what its rows amount to."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from nemo_ext.evaluation.contract import Contract
from nemo_ext.evaluation.evaluation_rows import evaluation_rows, problem_batches, refuse_apart
from nemo_ext.evaluation.metrics import scores
from nemo_ext.evaluation.problems import Problem, count_problems
from nemo_ext.records import manifest
from nemo_ext.records.files import sha256_json, write_json_atomic
from nemo_ext.rows.batches import Batch
from nemo_ext.rows.passes import run_batches, worker_count
from nemo_ext.rows.row import Row

SCORES = "scores.json"
MAX_STAGES_BETWEEN = 8


def count_files(files: Sequence[Path], workers: int | None = None) -> list[Problem]:
    """The problems of an evaluation's rows, in order. Memory holds a problem's counts, not its texts.

    Raises ValueError for what is not a row of an evaluation, and where a problem's samples lie apart.
    """
    found = run_batches(_counter, problem_batches(files), worker_count(workers, files))
    counted = [problem for _, problems in found for problem in problems]
    refuse_apart(files[0].parent if files else "", ((problem.benchmark, problem.id) for problem in counted))
    return counted


def _counter() -> Callable[[Batch], list[Problem]]:
    def count(batch: Batch) -> list[Problem]:
        return list(count_problems(evaluation_rows(batch)))

    return count


def write_scores(
    folder: Path, model: str, contract: Contract, problems: Sequence[Problem], step: int | None = None
) -> dict[str, Any]:
    """Write <folder>/scores.json; returns what it holds."""
    content = {
        "model": model,
        "step": step,
        "contract": contract.to_dict(),
        "num_samples": max((problem.num_samples for problem in problems), default=0),
        "benchmarks": scores(problems),
    }
    write_json_atomic(folder / SCORES, content)
    return content


def read_scores(folder: Path) -> dict[str, Any]:
    """Raises ValueError where the folder has none, or none that can be read."""
    path = folder / SCORES
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {SCORES}: give the folder of an evaluate or rescore stage (with variants, one of them)"
        )
    try:
        content = json.loads(path.read_text())
        Contract.from_dict(content["contract"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the scores of an evaluation: {error}. Evaluate or rescore again.") from error
    return dict(content)


def scores_behind(folder: Path) -> dict[str, Any] | None:
    """What `scores_file_behind` holds."""
    found = scores_file_behind(folder)
    return None if found is None else read_scores(found.parent)


def scores_file_behind(folder: Path) -> Path | None:
    """The scores of the evaluation whose rows lie in `folder`: its own, or, of a stage that passed them on, such as
    judge_answers, those of where they came from. None: rows from elsewhere."""
    for _ in range(MAX_STAGES_BETWEEN):
        if (folder / SCORES).is_file():
            return folder / SCORES
        if not (folder / manifest.MANIFEST).is_file():
            return None
        sources = {Path(each["path"]).parent for each in manifest.read(folder).get("inputs", [])}
        if len(sources) != 1:
            return None
        folder = sources.pop()
    return None


def benchmark_digest(problems: Iterable[Row]) -> str:
    """Hash of what was asked: benchmark, problem and expected_answer of every problem, in order."""
    return sha256_json([[row["benchmark"], row["problem"], row["expected_answer"]] for row in problems])
