"""The known and the given answer of a row, as text, whatever a person's file has in their place."""

from dataclasses import dataclass
from typing import Any

from nemo_ext.grading.extract import extract_answer


@dataclass(frozen=True)
class Predicted:
    """A solution's answer; None where it gives none."""

    text: str | None


def answer_of(value: Any) -> str | None:
    """An answer as text: 27.0, as AMC files have it, is 27. None for what is no answer (null, a list, an empty text)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def predicted_answer(row: dict[str, Any], extractor: str) -> Predicted | None:
    """The answer in the row's `generation`, or else its `predicted_answer`; None where it has neither."""
    if isinstance(generation := row.get("generation"), str):
        return Predicted(extract_answer(generation, extractor))
    if "predicted_answer" in row:
        return Predicted(answer_of(row["predicted_answer"]))
    return None
