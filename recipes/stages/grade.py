"""Compare every solution's answer with the known one.

In:  rows with `generation` and `expected_answer`
Out: the row and {"predicted_answer": "19", "is_correct": true, "grade_method": "exact"}; nothing is dropped
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from nemo_ext.rows import Row, RowWriter, input_files, read_rows
from recipes.stage import Stage


@dataclass(kw_only=True)
class Config(Stage):
    input: str = MISSING
    extractor: str = "boxed"
    """boxed, the_answer_is or hash: where in the text the answer is."""
    processes: int = 2
    """For the pairs that need computer algebra."""
    timeout_s: float = 5.0
    """CPU seconds one such pair may take; then it is undecided, which counts as not correct."""


def run(cfg: Config) -> Facts:
    from nemo_ext.progress import Progress

    folder, files = Path(cfg.output_dir), input_files(cfg.input)
    progress = Progress(folder, "rows")
    correct = 0
    with RowWriter(folder) as out:
        for row in graded(
            (row for file in files for row in read_rows(file)), cfg.extractor, cfg.processes, cfg.timeout_s
        ):
            out.keep(row)
            correct += row["is_correct"]
            progress.update(out.kept)
    return Facts(
        inputs=files,
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        figures={"correct": correct},
    )


def graded(rows: Iterator[Row], extractor: str, processes: int, timeout_s: float) -> Iterator[Row]:
    from collections import deque

    from nemo_ext.grading.extract import extract_answer
    from nemo_ext.grading.grader import Grader

    waiting: deque[Row] = deque()

    def pairs() -> Iterator[tuple[str | None, str]]:
        for row in rows:
            waiting.append(row | {"predicted_answer": extract_answer(row["generation"], extractor)})
            yield waiting[-1]["predicted_answer"], row["expected_answer"]

    with Grader(processes, timeout_s) as grader:
        for verdict in grader.grade(pairs()):
            yield waiting.popleft() | {"is_correct": bool(verdict), "grade_method": verdict.method}
