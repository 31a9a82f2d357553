"""The samples of one problem, counted: what every score of a benchmark is computed from.

A row: {"benchmark": "gsm8k", "id": "7", "sample": 0, "predicted_answer": "12", "is_correct": true, "finish_reason": "stop",
        "verdicts": {"symbolic": true}, "level": 3}
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from nemo_ext.aggregation.vote import equal_spellings
from nemo_ext.rows.row import Row, content_id, read_rows

BREAKDOWNS = ("level", "subject", "source")
FIRST_MAJORITY = 4  # of fewer samples a majority is mostly the first answer


@dataclass(frozen=True)
class Problem:
    """One problem under evaluation; `correct` has a verdict per sample, in the order of the samples."""

    benchmark: str
    id: str
    correct: tuple[bool, ...]
    no_answer: int
    truncated: int
    majority: dict[int, float]
    """k -> share of the blocks of k samples whose majority answer is correct."""
    verdicts: Counter[tuple[tuple[str, bool | None], ...]]
    """What the graders said together, as ((grader, verdict), ...) -> number of samples."""
    groups: dict[str, str] = field(default_factory=dict)
    """level, subject and source, where the benchmark has them."""
    content: str = ""
    """A hash of its text and answer: of one id in two evaluations, whether it is the same problem."""

    @property
    def num_samples(self) -> int:
        return len(self.correct)

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / len(self.correct)


def scored_problems(files: Iterable[Path]) -> Iterator[Row]:
    """The problems of a prepare_benchmarks stage's files.

    Raises:
        ValueError: one has no expected answer.
    """
    for row in chain.from_iterable(map(read_rows, files)):
        if row.get("expected_answer") is None:
            raise ValueError(
                f"{row.get('benchmark')} {row.get('id')} has no expected_answer, so nothing can be scored; "
                "prepare the benchmarks with require_answers=true"
            )
        yield row


def count_problems(rows: Iterable[Row]) -> Iterator[Problem]:
    """One Problem per run of rows that share benchmark and id."""
    for (benchmark, problem_id), samples in groupby(rows, key=lambda row: (row["benchmark"], row["id"])):
        yield _count(str(benchmark), str(problem_id), list(samples))


def _count(benchmark: str, problem_id: str, rows: Sequence[Row]) -> Problem:
    answers = [row["predicted_answer"] for row in rows]
    correct = tuple(row["is_correct"] is True for row in rows)
    return Problem(
        benchmark=benchmark,
        id=problem_id,
        correct=correct,
        no_answer=answers.count(None),
        truncated=sum(row.get("finish_reason") == "length" for row in rows),
        majority=majorities(answers, correct, majority_sizes(len(rows))),
        verdicts=Counter(tuple((row.get("verdicts") or {}).items()) for row in rows),
        groups={key: _label(rows[0][key]) for key in BREAKDOWNS if rows[0].get(key) not in (None, "", [])},
        content=content_id(str(rows[0].get("problem")), str(rows[0].get("expected_answer"))),
    )


def _label(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, and `most` itself."""
    return sorted({*(1 << i for i in range(most.bit_length()) if 1 << i <= most), most})


def majority_sizes(num_samples: int) -> list[int]:
    return [k for k in powers_of_two(num_samples) if k >= FIRST_MAJORITY or k == num_samples > 1]


def majorities(
    answers: Sequence[str | None],
    correct: Sequence[bool],
    sizes: Sequence[int],
) -> dict[int, float]:
    """k -> share of correct majorities over the blocks of k samples that follow one another; a rest is left out.

    Answers that are equal however they are written vote together; None is not a vote; of two answers with as many votes the
    one given first in the block wins. A block without an answer is wrong.
    """
    classes = answer_classes(answers) if sizes else []
    right: dict[int, bool] = {}
    for which, verdict in zip(classes, correct, strict=bool(sizes)):
        if which is not None:
            right[which] = right.get(which, False) or verdict
    shares = {}
    for k in sizes:
        blocks = [classes[start : start + k] for start in range(0, len(classes) - k + 1, k)]
        shares[k] = sum(right.get(_winner(block), False) for block in blocks) / len(blocks)
    return shares


def _winner(block: Sequence[int | None]) -> int:
    votes = Counter(which for which in block if which is not None)
    return max(votes, key=votes.__getitem__) if votes else -1


def answer_classes(answers: Sequence[str | None]) -> list[int | None]:
    """A number for each answer, the same for equal ones, by first appearance; None for none."""
    counts = Counter(each for each in answers if each is not None)
    classes = equal_spellings(counts, dict(counts))
    chosen = {spelling: representative for representative, members in classes.items() for spelling in members}
    numbers: dict[str, int] = {}
    return [None if each is None else numbers.setdefault(chosen[each], len(numbers)) for each in answers]
