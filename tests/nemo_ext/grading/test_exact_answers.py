"""Answers as rows have them: text, whole numbers of any size, floats."""

from typing import Any

import pytest

from nemo_ext.grading import grade_pairs
from nemo_ext.grading.answers import Predicted, answer_of, predicted_answer, reason_not_graded


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("5", "5"),
        (" 5 ", "5"),
        ("", None),
        (None, None),
        (True, None),
        ([5], None),
        (5, "5"),
        (27.0, "27"),
        (0.5, "0.5"),
        (12345678901234567890123, "12345678901234567890123"),
        (-(2**64) - 1, "-18446744073709551617"),
        (float(2**53 - 1), "9007199254740991"),
        (float(2**53), None),
        (1.2345678901234567e22, None),
        (-1e300, None),
    ],
)
def test_an_answer_is_exact_or_none(value: Any, answer: str | None) -> None:
    assert answer_of(value) == answer


def test_whole_numbers_of_any_size_are_compared_exactly() -> None:
    pairs = [(rf"{2**64 + i}", str(answer_of(2**64))) for i in range(3)]
    assert [verdict.equal for verdict in grade_pairs(pairs)] == [True, False, False]


def test_a_float_that_has_lost_digits_is_no_answer_and_the_reason_says_so() -> None:
    row = {"expected_answer": 1e22, "predicted_answer": 1e22}
    own = predicted_answer(row, "boxed")
    assert own is None and answer_of(row["expected_answer"]) is None
    assert reason_not_graded(row, None, Predicted("1")) == "inexact_answer"
    assert reason_not_graded(row | {"expected_answer": 5}, "5", own) == "inexact_answer"
    assert reason_not_graded({"generation": r"\boxed{1}"}, None, Predicted("1")) == "no_expected_answer"
    assert reason_not_graded({"expected_answer": "1"}, "1", None) == "no_generation"
    assert reason_not_graded({"expected_answer": "1"}, "1", Predicted(None)) is None
