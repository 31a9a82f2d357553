"""The known and the given answer of a row, as text, whatever a person's file has in their place."""

from dataclasses import dataclass
from typing import Any

from nemo_ext.grading.extract import extract_answer
from nemo_ext.rows.row import written_solution

_EXACT_BELOW = 2**53  # from there on, a float stands for several whole numbers


@dataclass(frozen=True)
class Predicted:
    """A solution's answer; None where it gives none."""

    text: str | None


def answer_of(value: Any) -> str | None:
    """An answer as text: 27.0, as AMC files have it, is 27. None for what is not an answer (null, a list, an empty text) and
    for a float whose last digits are lost."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or is_inexact(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def is_inexact(value: Any) -> bool:
    """Is this a whole number too large for a float, which holds another one in its place?"""
    return isinstance(value, float) and value.is_integer() and abs(value) >= _EXACT_BELOW


def reason_not_graded(row: dict[str, Any], expected: str | None, predicted: Predicted | None) -> str | None:
    """no_expected_answer, no_generation or inexact_answer; None where the row has two answers to compare."""
    if expected is None:
        return "inexact_answer" if is_inexact(row.get("expected_answer")) else "no_expected_answer"
    if predicted is None:
        return "inexact_answer" if is_inexact(row.get("predicted_answer")) else "no_generation"
    return None


def predicted_answer(row: dict[str, Any], extractor: str) -> Predicted | None:
    """The answer in the row's solution, or else its `predicted_answer`; None where it has neither."""
    if (solution := written_solution(row)) is not None:
        return Predicted(extract_answer(solution, extractor))
    if "predicted_answer" in row and not is_inexact(row["predicted_answer"]):
        return Predicted(answer_of(row["predicted_answer"]))
    return None
