"""A chain of filters and edits, the steps that a recipe lists by name: a row passes them all or is dropped.

    chain = Chain([Step("incorrect"), Step("trim_after_answer"), Step("solution_too_short", {"min_chars": 200})])
    row, reason = chain(row)

The functions are in nemo_ext/curation/filters/, by what they look at; those that NeMo-Skills' SFT data preparation has too
do what the paper says, in the order of the recipe. `generation` is what the teacher wrote and is never changed: edits work
on `generated_solution`, which starts as `generation` without outer white space.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_ext.curation.filter_steps import EDITS, FILTERS, NEEDS
from nemo_ext.curation.filters.context import Context, Row
from nemo_ext.plug_ins import fits
from nemo_ext.rows.row import written_solution

ADDED_BY = {
    "is_correct": "python launchers/run.py +recipe=grade input=<your file>",
    "majority_votes": "python launchers/run.py +recipe=vote input=<your file>",
    "total_votes": "python launchers/run.py +recipe=vote input=<your file>",
    "finish_reason": "python launchers/run.py +recipe=generate input=<your file>",
    "trace": "python launchers/run.py +recipe=generate input=<your file> use_tools=true",
}


@dataclass(frozen=True)
class Step:
    """A filter or edit by name, with its parameters.

    Raises:
        ValueError: an unknown name or parameter, or a value of another type.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        function = FILTERS.get(self.name) or EDITS.get(self.name)
        if function is None:
            choices = ", ".join(sorted(FILTERS | EDITS))
            raise ValueError(f"filter step: got {self.name!r}, choose one of {choices}")
        parameters = inspect.signature(function).parameters.values()
        known = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
        unknown = sorted(set(self.params) - set(known))
        if unknown:
            takes = ", ".join(known) or "none"
            raise ValueError(f"filter step {self.name}: unknown parameter {', '.join(unknown)}; it takes {takes}")
        for key, value in self.params.items():
            if not fits(value, known[key]):
                expected = getattr(known[key], "__name__", str(known[key]))
                raise ValueError(f"filter step {self.name}: {key}={value!r} is not {expected}")

    @property
    def is_edit(self) -> bool:
        return self.name in EDITS

    @property
    def function(self) -> Callable[..., Any]:
        return FILTERS.get(self.name) or EDITS[self.name]


class Chain:
    """Steps in order; the first filter that objects ends it."""

    def __init__(self, steps: Sequence[Step], context: Context | None = None) -> None:
        self.context = context or Context()
        self._steps = [(step.is_edit, step.function, dict(step.params)) for step in steps]

    def __call__(self, row: Row) -> tuple[Row, str | None]:
        """The row with `generated_solution` as edited so far, and the reason to drop it or None; `row` is not changed."""
        row, reason = with_solution(row)
        if reason is not None:
            return row, reason
        for is_edit, function, params in self._steps:
            if is_edit:
                row["generated_solution"] = function(row["generated_solution"], **params)
            elif reason := function(row, self.context, **params):
                return row, reason
        return row, None


def with_solution(row: Row) -> tuple[Row, str | None]:
    """A copy with the `generated_solution` that steps work on, and the reason to drop it where it has no text."""
    row = dict(row)
    if not isinstance(row.get("problem"), str):
        return row, "no_problem"
    solution = written_solution(row)
    if solution is None:
        return row, "no_solution"
    if row.get("generated_solution") is None:
        row["generated_solution"] = solution.strip()
    return row, None


def apply(row: Row, steps: Sequence[Step], context: Context | None = None) -> tuple[Row, str | None]:
    """`Chain(steps, context)(row)`, for a single row."""
    return Chain(steps, context)(row)


def require_columns(rows: Iterable[Row], steps: Sequence[Step]) -> None:
    """Refuse steps whose columns no row has.

    Raises:
        ValueError: naming step, column and the command that adds it.
    """
    rows = list(rows)
    present = {key for row in rows for key in row}
    if rows and not present & {"generation", "generated_solution"}:
        raise ValueError(
            "the rows have no solution: none has generation, generated_solution, solution or response. To have a model "
            "write them: python launchers/run.py +recipe=generate input=<your file>"
        )
    for step in steps:
        for column in NEEDS.get(step.name, ()) if rows else ():
            if column not in present:
                raise ValueError(
                    f"step {step.name} needs the column {column}, which none of the first {len(rows)} rows has. Leave "
                    f"the step out, or add the column first: {ADDED_BY[column]}"
                )
