r"""What a row must pass to be trained on, and the edits made to its solution.

A filter is `(row, context, *, parameters) -> reason to drop | None`, an edit `(solution, *, parameters) -> solution`.
A recipe lists them by name:

    steps = [Step("incorrect"), Step("trim_after_answer"), Step("solution_too_short", {"min_chars": 200})]
    row, reason = apply(row, steps, Context(count_tokens=...))

They are those of NeMo-Skills' SFT data preparation (drop_multi_boxed, trim_prefix, trim_solutions,
drop_incorrect_arithmetic, remove_len_outlier_problems and _solutions, majority_filter); the order is the recipe's.
`generation` is what the teacher wrote and is never changed: edits work on `generated_solution`, which starts as
`generation` without outer white space.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_ext.curation.arithmetic import wrong_statement
from nemo_ext.grading.extract import last_box

Row = dict[str, Any]

_BOX = re.compile(r"\\boxed(?![A-Za-z])")
_CLOSES_DISPLAY_MATH = ("\\end{", "\\]", "$$")


@dataclass(frozen=True)
class Context:
    """What filters need beyond the row. Without a tokenizer lengths in tokens are lengths in characters."""

    count_tokens: Callable[[str], int] = len


def incorrect(row: Row, context: Context) -> str | None:
    """No answer was found, or it is not the expected one."""
    if row.get("predicted_answer") is None:
        return "no_answer"
    return None if row.get("is_correct") is True else "incorrect"


def truncated(row: Row, context: Context) -> str | None:
    """The teacher ran out of tokens."""
    return "truncated" if row.get("finish_reason") == "length" else None


def multiple_boxes(row: Row, context: Context) -> str | None:
    r"""More than one \boxed, finished or not: which one is the answer is then a guess."""
    return "multiple_boxes" if len(_BOX.findall(row["generated_solution"])) > 1 else None


def no_box(row: Row, context: Context) -> str | None:
    """The solution boxes no answer."""
    return "no_box" if last_box(row["generated_solution"]) is None else None


def problem_too_long(row: Row, context: Context, *, max_tokens: int = 1024) -> str | None:
    """NeMo-Skills: 1,024 Llama tokens."""
    return "problem_too_long" if context.count_tokens(row["problem"]) > max_tokens else None


def solution_too_long(row: Row, context: Context, *, max_tokens: int = 1024) -> str | None:
    """NeMo-Skills: 1,024 Llama tokens."""
    return "solution_too_long" if context.count_tokens(row["generated_solution"]) > max_tokens else None


def solution_too_short(row: Row, context: Context, *, min_chars: int = 200) -> str | None:
    """NeMo-Skills counts characters here, not tokens, and so do we."""
    return "solution_too_short" if len(row["generated_solution"]) < min_chars else None


def incorrect_arithmetic(row: Row, context: Context, *, rel_tol: float = 1e-4) -> str | None:
    """A statement like `3 + 4 = 8` in the solution."""
    return "incorrect_arithmetic" if wrong_statement(row["generated_solution"], rel_tol) else None


def majority(row: Row, context: Context, *, min_votes: int = 0, min_share: float = 0.0) -> str | None:
    """Too few solutions agreed on the answer. Rows whose answer was given, not voted on, pass."""
    votes, total = row.get("majority_votes"), row.get("total_votes")
    if votes is None or total is None:
        return None
    enough = votes >= min_votes and (votes / total if total else 0.0) >= min_share
    return None if enough else "small_majority"


def trim_prefix(solution: str, *, prefix: str = "My solution:\n") -> str:
    """Remove what a few-shot prompt makes a teacher repeat."""
    return solution.removeprefix(prefix)


def trim_after_answer(solution: str) -> str:
    r"""Keep everything through the line on which the last box ends, and the next line when it closes display math.

    A solution without a whole box stays as it is. (NeMo-Skills of December 2024 cut after the first box, and cut a
    solution without a box on one line to its first line.)
    """
    box = last_box(solution)
    if box is None:
        return solution
    kept, newline, rest = solution[box.end :].partition("\n")
    next_line = rest.split("\n", 1)[0]
    if newline and next_line.lstrip().startswith(_CLOSES_DISPLAY_MATH):
        kept += newline + next_line
    return solution[: box.end] + kept


FILTERS: dict[str, Callable[..., str | None]] = {
    function.__name__: function
    for function in (
        incorrect,
        truncated,
        multiple_boxes,
        no_box,
        problem_too_long,
        solution_too_long,
        solution_too_short,
        incorrect_arithmetic,
        majority,
    )
}
EDITS: dict[str, Callable[..., str]] = {function.__name__: function for function in (trim_prefix, trim_after_answer)}


@dataclass(frozen=True)
class Step:
    """A filter or edit by name, with its parameters. Raises ValueError for an unknown name or parameter."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        function = FILTERS.get(self.name) or EDITS.get(self.name)
        if function is None:
            choices = ", ".join(sorted(FILTERS | EDITS))
            raise ValueError(f"filter step: got {self.name!r}, choose one of {choices}")
        parameters = inspect.signature(function).parameters.values()
        known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        unknown = sorted(set(self.params) - set(known))
        if unknown:
            takes = ", ".join(known) or "none"
            raise ValueError(f"filter step {self.name}: unknown parameter {', '.join(unknown)}; it takes {takes}")


def apply(row: Row, steps: Sequence[Step], context: Context | None = None) -> tuple[Row, str | None]:
    """Run the steps in order; the first filter that objects ends it.

    Returns the row with `generated_solution` as edited so far, and the reason to drop it or None. The row given is not
    changed.
    """
    context = context or Context()
    row = dict(row)
    row.setdefault("generated_solution", str(row["generation"]).strip())
    for step in steps:
        if step.name in EDITS:
            row["generated_solution"] = EDITS[step.name](row["generated_solution"], **step.params)
        elif reason := FILTERS[step.name](row, context, **step.params):
            return row, reason
    return row, None
