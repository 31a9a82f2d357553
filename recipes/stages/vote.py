"""Give new problems an answer: what most of their solutions say.

In:  rows with `generation`, all samples of a problem one after another
Out: the row and {"predicted_answer": "19", "expected_answer": "19", "majority_votes": 6, "total_votes": 8,
     "is_correct": true}; a problem none of whose solutions has an answer gets expected_answer null
"""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from nemo_ext.rows import RowWriter, input_files, read_rows
from recipes.stage import Stage

MODES = ("exact", "equivalent")


@dataclass(kw_only=True)
class Config(Stage):
    input: str = MISSING
    mode: str = "exact"
    """exact: answers are compared as strings, as the paper did. equivalent: 1/2 and 0.5 vote together."""
    extractor: str = "boxed"


def check(cfg: Config) -> None:
    if cfg.mode not in MODES:
        raise ValueError(f"stages.{cfg.name}.mode={cfg.mode!r}; it may be one of {MODES}")


def run(cfg: Config) -> Facts:
    from nemo_ext.grading.extract import extract_answer
    from nemo_ext.grading.vote import vote

    folder, files = Path(cfg.output_dir), input_files(cfg.input)
    problems: Counter[str] = Counter()
    with RowWriter(folder) as out:
        for file in files:
            for _, group in groupby(read_rows(file), key=lambda row: row["id"]):
                rows = list(group)
                answers = [extract_answer(row["generation"], cfg.extractor) for row in rows]
                result = vote(answers, "exact" if cfg.mode == "exact" else "equivalent")
                problems["answered" if result.answer is not None else "unanswered"] += 1
                for row, answer in zip(rows, answers, strict=True):
                    agrees = _agrees(answer, result.answer, cfg.mode)
                    out.keep(
                        row
                        | {
                            "predicted_answer": answer,
                            "expected_answer": result.answer,
                            "majority_votes": result.votes,
                            "total_votes": result.total,
                            "is_correct": agrees,
                        }
                    )
    return Facts(
        inputs=files,
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        figures=dict(sorted(problems.items())),
    )


def _agrees(answer: str | None, majority: str | None, mode: str) -> bool:
    from nemo_ext.grading.equal import equal

    if answer is None or majority is None:
        return False
    return answer == majority or (mode == "equivalent" and equal(answer, majority))
