"""The library as others call it: grade_pairs, and the graders by name."""

import subprocess
import sys

import pytest

from nemo_ext.grading import Verdict, extract_answer, grade_pairs
from nemo_ext.grading.graders import NAMES, hendrycks_form, rule_of
from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED


def test_pairs_get_three_way_verdicts_in_order() -> None:
    pairs = [("0.5", r"\frac{1}{2}"), (None, "3"), ("10^{10^{10}}", "10^{10^{11}}"), (r"\log 100", "2"), ("4", "5")]
    found = grade_pairs(pairs)
    assert [each.equal for each in found] == [True, False, None, True, False]
    assert [each.method for each in found] == ["numeric", "no_answer", "too_large", "math_verify", "numeric"]
    assert grade_pairs([]) == []
    assert grade_pairs(iter(pairs[:3]), workers=1) == found[:3]


@pytest.mark.parametrize("workers", [1, 2])
def test_verdicts_come_in_order_from_any_number_of_workers(workers: int) -> None:
    pairs = [(rf"\log 10^{{{i}}}", str(i // 2 * 2)) for i in range(30)]
    assert [each.equal for each in grade_pairs(pairs, workers=workers)] == [i % 2 == 0 for i in range(30)]


def test_unknown_grader_and_no_worker_are_refused() -> None:
    with pytest.raises(ValueError, match="got 'sympy', choose one of default, math_verify, hendrycks"):
        grade_pairs([("1", "1")], grader="sympy")
    with pytest.raises(ValueError, match="processes=0"):
        grade_pairs([("1", "1")], workers=0)


def test_importing_and_grading_plain_answers_loads_nothing_heavy() -> None:
    program = """
import sys
from nemo_ext.grading import Verdict, extract_answer, grade_pairs
assert extract_answer("The answer is 5") == "5"
assert grade_pairs([("5", "5.0")])[0].equal is True
heavy = {"sympy", "mpmath", "math_verify", "torch", "transformers", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("predicted", "expected", "equality"),
    [
        ("016", "16", EQUAL),
        ("16.0", "16", EQUAL),
        ("1,024", "1024", EQUAL),
        ("17", "16", DIFFERENT),
        ("x", "16", DIFFERENT),
        ("0.5", "16", DIFFERENT),
        (None, "16", DIFFERENT),
        ("1/2", "0.5", UNDECIDED),
        ("x", "x", EQUAL),
    ],
)
def test_integer(predicted: str | None, expected: str, equality: str) -> None:
    found = rule_of("integer")(predicted, expected)
    assert found is not None and found.equality == equality


def test_integer_modulo() -> None:
    assert grade_pairs([("2016", "16")], "integer_mod_1000")[0].equal is True
    assert grade_pairs([("2016", "16")], "integer")[0].equal is False
    assert grade_pairs([("-1", "999")], "integer_mod_1000")[0].equal is True
    with pytest.raises(ValueError, match="integer_mod_0"):
        rule_of("integer_mod_0")


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (r"\dfrac{1}{2}", r"\frac12", True),
        ("1/2", r"\frac{1}{2}", True),
        ("0.5", r"\frac{1}{2}", True),
        (r"10\%", "10", True),
        (r"90^\circ", "90", True),
        (r"18\text{ cm}", "18", True),
        (r"\$ 5", "5", True),
        ("x=5", "5", True),
        (r"\sqrt2", r"\sqrt{2}", True),
        ("x + 1", "x+1", True),
        ("x+1", "1+x", False),
        ("0.25", r"\frac{1}{4}", False),
        ("16", "016", False),
    ],
)
def test_hendrycks_compares_strings(left: str, right: str, same: bool) -> None:
    assert (hendrycks_form(left) == hendrycks_form(right)) is same
    assert grade_pairs([(left, right)], "hendrycks")[0] == Verdict(EQUAL if same else DIFFERENT, "hendrycks")


def test_math_verify_alone_has_no_rules_of_ours() -> None:
    assert [each.method for each in grade_pairs([("5", "5"), ("18 dollars", "18")], "math_verify")] == [
        "math_verify"
    ] * 2
    assert len(NAMES) == 5


def test_extraction_is_the_package_s() -> None:
    assert extract_answer(r"\boxed {6}") == "6"
