"""Which answers may be voted for; NuminaMath's rule and where its published code goes wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.aggregation.answers import allowed, read_answer
from nemo_ext.aggregation.config import AnswerRule

NUMINA = AnswerRule(window_chars=100, integers=True, modulus=1000, non_negative=True, default="0")


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("52", "52"), ("1052", "52"), ("1{,}000", "0"), ("1,007", "7"), ("1e3", "0"), ("052", "52"), ("52.0", "52"), ("10^4 + 1", None),
        ("-5", None), ("3.5", None), ("0.49", None), ("x", None), ("", None), ("\\frac{8}{4}", "2"), ("1052 \\text{ cm}", "52"),
    ],
)  # fmt: skip
def test_numinas_rule(answer: str, read: str | None) -> None:
    """Its own code rounds 3.5 to 4 and 0.49 to 0, and reads 1e3 as 0 by another way."""
    assert read_answer(f"So \\boxed{{{answer}}}.", NUMINA) == read


def test_negative_remainders_where_they_are_allowed() -> None:
    assert allowed("-5", AnswerRule(integers=True, modulus=1000)) == "995"
    assert allowed("-5", AnswerRule(integers=True)) == "-5"


def test_the_window() -> None:
    rule = AnswerRule(window_chars=10)
    assert read_answer("\\boxed{7}" + "." * 10, rule) == "7"
    assert read_answer("\\boxed{7}" + "." * 11, rule) is None
    assert read_answer("\\boxed{7}" + "." * 10 + "\n  \n", rule) == "7", "space at the end is not text"
    assert read_answer("\\boxed{7}" + "." * 500, AnswerRule()) == "7"


def test_without_a_rule_the_last_box_stands() -> None:
    assert read_answer("\\boxed{1} or \\boxed{\\frac{1}{2}}", AnswerRule()) == "\\frac{1}{2}"
    assert read_answer("no box", AnswerRule()) is None and read_answer("\\boxed{ }", AnswerRule()) is None


@given(st.integers(-(10**40), 10**40), st.integers(1, 10**6))
def test_remainders_are_exact(value: int, modulus: int) -> None:
    assert allowed(str(value), AnswerRule(integers=True, modulus=modulus)) == str(value % modulus)


@pytest.mark.parametrize(
    "fields", [{"window_chars": 0}, {"modulus": 0, "integers": True}, {"modulus": 7}, {"non_negative": True}]
)
def test_rules_that_make_no_sense(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"rule\."):
        AnswerRule(**fields)  # type: ignore[arg-type]
