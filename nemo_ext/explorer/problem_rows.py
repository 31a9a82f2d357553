"""An evaluation's rows, problem by problem: what the list shows of each, and the samples as the page reads them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.grading.reading.normalise import normalise
from nemo_ext.rows.row import Row, read_rows, written_solution

PROBLEM_KEYS = ("benchmark", "id", "problem", "expected_answer", "level", "subject", "source")
SAMPLE_KEYS = (
    "sample", "is_correct", "predicted_answer", "verdicts", "finish_reason", "num_prompt_tokens", "num_generated_tokens",
    "seed", "reward", "generation",
)  # fmt: skip
"""The values that open a sample's list in a part; after them come its vote group, and a dict of whatever else differs
between samples."""
SOLUTIONS = ("generation", "generated_solution")
"""Columns of which the page shows the one that is the row's solution, as `generation`."""
SHORT = 200
"""Characters of an id, a label or an answer in the list."""
PROBLEM_TEXT = 2000
"""Characters of a problem that the list shows and searches."""


def is_sample(row: Row) -> bool:
    """It has a problem, and a column of its solution."""
    return "problem" in row and any(key in row for key in SOLUTIONS)


def text(value: Any, limit: int = SHORT) -> str | None:
    """What the page shows of a value that should be a short text."""
    if value is None:
        return None
    shown = value if isinstance(value, str) else str(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "\u2026"


def problems(files: Iterable[Path]) -> Iterator[list[Row]]:
    """The samples of one problem after another. A sample whose index isn't higher than the one before begins another
    problem: a benchmark may hold the same problem twice.

    Raises:
        ValueError: a row that no evaluation wrote.
    """
    group: list[Row] = []
    for file in files:
        for number, row in enumerate(read_rows(file), start=1):
            if not is_sample(row):
                raise ValueError(
                    f"{file}:{number}: not a row of an evaluation, which has problem and generation; it has {', '.join(row)}"
                )
            if group and (_key(row) != _key(group[-1]) or _begins_again(group[-1], row)):
                yield group
                group = []
            group.append(row)
    if group:
        yield group


def _key(row: Row) -> tuple[Any, Any]:
    return row.get("benchmark"), row.get("id", row["problem"])


def _begins_again(before: Row, row: Row) -> bool:
    return row.get("sample", 0) <= before.get("sample", -1) if "sample" in row else "sample_index" not in row


def listed(rows: list[Row]) -> list[Any]:
    """The problem itself: PROBLEM_KEYS, short."""
    row = rows[0]
    limits = {"problem": PROBLEM_TEXT}
    values = {key: text(row.get(key), limits.get(key, SHORT)) for key in PROBLEM_KEYS}
    values["id"] = text(row.get("id", row["problem"]))
    return [values[key] or "" for key in PROBLEM_KEYS]


def constant_fields(rows: list[Row]) -> dict[str, Any]:
    """What all samples share and the list does not show whole: the solution, a long problem's text."""
    first = rows[0]
    shown = dict(zip(PROBLEM_KEYS, listed(rows), strict=True))
    keys = [
        key
        for key in first
        if key not in (*SAMPLE_KEYS, *SOLUTIONS) and all(row.get(key) == first[key] for row in rows)
    ]
    return {key: first[key] for key in keys if str(first[key]) != shown.get(key)}


@dataclass
class Votes:
    """Answers that count as one: those graded correct, and those written the same after normalising."""

    groups: list[int | None]
    """The group of each sample; None: no answer."""
    answer: str | None = None
    """The group with most votes, in its most frequent spelling."""
    votes: int = 0
    is_correct: bool | None = None


def votes(rows: list[Row]) -> Votes:
    numbers: dict[Any, int] = {}
    spellings: list[Counter[str]] = []
    groups: list[int | None] = []
    correct: dict[int, bool | None] = {}
    for row in rows:
        answer = row.get("predicted_answer")
        if answer is None:
            groups.append(None)
            continue
        answer, verdict = str(answer), row.get("is_correct")
        number = numbers.setdefault(True if verdict else normalise(answer), len(numbers))
        if number == len(spellings):
            spellings.append(Counter())
            correct[number] = verdict
        spellings[number][answer] += 1
        groups.append(number)
    if not spellings:
        return Votes(groups)
    best = min(range(len(spellings)), key=lambda each: (-spellings[each].total(), _spelling(spellings[each])))
    return Votes(groups, _spelling(spellings[best]), spellings[best].total(), correct[best])


def _spelling(counts: Counter[str]) -> str:
    return min(counts, key=lambda each: (-counts[each], len(each), each))


def disagree(row: Row) -> bool:
    """One grader says right and another says wrong."""
    given = (row.get("verdicts") or {}).values()
    return True in given and False in given


def summary(rows: list[Row], voted: Votes) -> list[Any]:
    """What the list shows of one model on one problem; problem.js names the places."""
    tokens = [row["num_generated_tokens"] for row in rows if row.get("num_generated_tokens") is not None]
    return [
        len(rows),
        sum(row.get("is_correct") is True for row in rows),
        text(voted.answer),
        voted.votes,
        voted.is_correct,
        sum(row.get("predicted_answer") is None for row in rows),
        sum(row.get("finish_reason") == "length" for row in rows),
        sum(map(disagree, rows)),
        round(sum(tokens) / len(tokens)) if tokens else None,
    ]


def samples(rows: list[Row], voted: Votes, fields: dict[str, Any]) -> Iterator[list[Any]]:
    """`fields`: the constant_fields, which are left out."""
    known = {*SAMPLE_KEYS, *SOLUTIONS, *PROBLEM_KEYS, *fields, "sample_index"}
    for number, (row, group) in enumerate(zip(rows, voted.groups, strict=True)):
        solution = written_solution(row)
        values = [solution if key == "generation" else row.get(key) for key in SAMPLE_KEYS]
        values[0] = row.get("sample", row.get("sample_index", number))
        before = {} if row.get("generation") in (None, solution) else {"generation": row["generation"]}
        yield [*values, group, {key: value for key, value in row.items() if key not in known} | before]
