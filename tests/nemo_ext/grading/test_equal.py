import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.grading.equal import DIFFERENT, EQUAL, UNDECIDED, Grader, Verdict, equal, fast_verdict, verdict
from nemo_ext.grading.reading.normalise import normalise
from nemo_ext.grading.reading.number import number

SAME = [
    ("5", "5", "exact"),
    (" 5 ", "5", "normalised"),
    ("$5$", "5", "normalised"),
    ("5.", "5", "normalised"),
    (r"\dfrac{1}{2}", r"\frac12", "normalised"),
    (r"\sqrt2", r"\sqrt{2}", "normalised"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", "normalised"),
    (r"x^{2}", "x^2", "normalised"),
    (r"\text{Even}", "even", "normalised"),
    (r"\text{(C)}", "C", "normalised"),
    ("two", "2", "normalised"),
    ("016", "16", "numeric"),
    ("16.0", "16", "numeric"),
    ("1,234", "1234", "numeric"),
    (r"1{,}234{,}567", "1234567", "normalised"),
    (r"12\,500", "12500", "numeric"),
    ("-0", "0", "numeric"),
    (".5", "0.50", "numeric"),
    ("0.5", r"\frac{1}{2}", "numeric"),
    ("1/2", r"\frac{2}{4}", "numeric"),
    (r"2\frac{1}{2}", "5/2", "numeric"),
    ("-1 1/2", "-1.5", "numeric"),
    ("-7", "\u22127", "normalised"),
    (r"\$18.00", "18", "numeric"),
    ("18 dollars", "18", "numeric"),
    (r"18\text{ square feet}", "18", "numeric"),
    ("5 cm^2", "5", "numeric"),
    ("60 miles per hour", "60", "numeric"),
    (r"90^\circ", "90", "numeric"),
    ("90\u00b0", "90", "numeric"),
    (r"10\%", "10", "numeric"),
    (r"10\%", "0.1", "percent"),
    ("10 percent", "10%", "numeric"),
    ("2.5 million", "2500000", "numeric"),
    ("x=5", "5", "normalised"),
    ("52_8", "52_{8}", "normalised"),
    ("0.333333", "1/3", "numeric"),
    ("17.999999999999996", "18", "numeric"),
]
NOT_SAME = [
    (r"\frac{\pi}{3}^\circ", r"\frac{\pi}{3} km", "unit"),
    (r"\frac{\pi}{3}^{\circ}", r"\frac{\pi}{3}\text{ radians}", "unit"),
    (r"x=\frac{\pi}{3}^\circ", r"\frac{\pi}{3}\text{ cm}", "unit"),
    (r"2\sqrt{3}^\circ", r"2\sqrt{3}\mathrm{ cm}", "unit"),
    (r"180-2x^\circ", "180-2x km", "unit"),
    (r"\theta^\circ", r"\theta km", "unit"),
    (r"\sqrt{2}^\circ\text{C}", r"\sqrt{2} km", "unit"),
    (r"\sqrt{2}^\circ C", r"\sqrt{2}^\circ F", "unit"),
    (r"22^\circ 30'", "22.5 km", "unit"),
    (None, "5", "no_answer"),
    ("", "5", "no_answer"),
    ("5", "500", "numeric"),
    ("500", "5", "numeric"),
    ("0.05", "5", "numeric"),
    ("120006", "120000", "numeric"),
    ("0.333", "1/3", "numeric"),
    ("0.0000001", "0.0000002", "numeric"),
    ("5", "-5", "numeric"),
    ("1000000000001.0", "1000000000000", "numeric"),
    ("0.999999", "1", "numeric"),
    ("5%", "5000", "numeric"),
    ("52_8", "52_7", "numeric"),
    ("2.5 million", "2.5", "numeric"),
    ("seat", "east", "text"),
    ("Monday", "5", "text"),
]
LEFT_OPEN = [(r"\sqrt{x^2}", "x"), (r"\log 100", "2"), ("x+y=5", "5"), ("f(2)", "3"), ("5!!!", "5")]


@pytest.mark.parametrize(("predicted", "expected", "method"), SAME)
def test_rule_calls_equal(predicted: str, expected: str, method: str) -> None:
    assert fast_verdict(predicted, expected) == Verdict(EQUAL, method)


@pytest.mark.parametrize(("predicted", "expected", "method"), NOT_SAME)
def test_rule_calls_different(predicted: str | None, expected: str, method: str) -> None:
    assert fast_verdict(predicted, expected) == Verdict(DIFFERENT, method)


@pytest.mark.parametrize(("predicted", "expected"), LEFT_OPEN)
def test_left_to_computer_algebra(predicted: str, expected: str) -> None:
    assert fast_verdict(predicted, expected) is None


def test_huge_answers_are_not_read_as_numbers() -> None:
    assert fast_verdict("9" * 900, "9" * 901) == Verdict(DIFFERENT, "value")
    assert fast_verdict("9" * 5000, "9") == Verdict(UNDECIDED, "too_long")


numbers = st.fractions(max_denominator=1000).map(
    lambda f: str(f.numerator) if f.denominator == 1 else rf"\frac{{{f.numerator}}}{{{f.denominator}}}"
) | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3).map(str)


@given(numbers, numbers)
def test_numbers_compare_reflexively_symmetrically_and_exactly(left: str, right: str) -> None:
    assert fast_verdict(left, left + ".0" if "." not in left and "frac" not in left else left)
    forward, backward = fast_verdict(left, right), fast_verdict(right, left)
    assert forward is not None
    assert backward is not None
    assert forward.equality == backward.equality
    left_number, right_number = number(normalise(left)), number(normalise(right))
    assert left_number is not None
    assert right_number is not None
    if left_number.value == right_number.value:
        assert forward
    elif abs(left_number.value - right_number.value) > Fraction(1, 1000):
        assert not forward


@given(st.integers(min_value=1, max_value=10**12))
def test_a_factor_of_a_hundred_is_never_equal(value: int) -> None:
    assert not fast_verdict(str(value), str(value * 100))
    assert not fast_verdict(str(value * 100), f"{value:,}")


@pytest.mark.parametrize(
    ("predicted", "expected", "answer"),
    [(r"\log 100", "2", True), (r"\int_0^1 x dx", r"\frac{1}{2}", True)],
)
def test_computer_algebra(predicted: str, expected: str, answer: bool) -> None:
    assert verdict(predicted, expected).method == "math_verify"
    assert equal(predicted, expected) is answer


STALLS = r"\prod_{k=1}^{10^{8}} k"


def test_a_stalling_pair_costs_only_itself() -> None:
    pairs = [(r"\log 100", "2"), (STALLS, "3"), (r"\log 1000", "3"), (STALLS, "4"), (r"\log 10", "3")]
    with Grader(processes=1, timeout_s=1) as grader:
        found = list(grader.grade(pairs))
    assert [item.equality for item in found] == [EQUAL, UNDECIDED, EQUAL, UNDECIDED, DIFFERENT]


def test_after_a_stall_the_next_pair_needs_no_new_start() -> None:
    with Grader(timeout_s=1) as grader:
        assert grader.verdict(r"\log 100", "2")
        process = grader._workers[0]._process
        assert grader.verdict(STALLS, "3") == Verdict(UNDECIDED, "stalled_or_died")
        assert grader.verdict(r"\log 1000", "3")
        assert grader._workers[0]._process is process, "a fork of it died, not it"


def test_a_killed_worker_is_replaced() -> None:
    with Grader(timeout_s=5) as grader:
        assert grader.verdict(r"\log 100", "2")
        process = grader._workers[0]._process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert grader.verdict(r"\log 100", "2")  # from the cache
        assert grader.verdict(r"\log 1000", "3") == Verdict(UNDECIDED, "stalled_or_died")
        assert grader.verdict(r"\log 10", "1")
    assert grader._workers[0]._process is None


def test_no_process_outlives_its_grader() -> None:
    with Grader() as grader:
        assert grader.verdict(r"\log 100", "2")
        process = grader._workers[0]._process
        assert process is not None
        assert len(_in_group(process.pid)) == 2
        group = process.pid
    deadline = time.monotonic() + 60
    while _in_group(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _in_group(group)


def _in_group(group: int) -> list[str]:
    """Names of the processes of a group that have not ended."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            stats.append(path.read_text().rsplit(")", 1))
    return [name for name, rest in stats if rest.split()[2] == str(group) and rest.split()[0] != "Z"]


def test_grading_reads_a_bounded_part_of_its_input() -> None:
    read = 0

    def pairs():
        nonlocal read
        while True:
            read += 1
            yield rf"\log 10^{{{read}}}", str(read)

    with Grader(processes=1) as grader:
        verdicts = grader.grade(pairs())
        assert next(verdicts)
        assert read <= 258
        verdicts.close()


def test_a_worker_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with Grader(memory_gb=0.01) as grader, pytest.raises(RuntimeError, match="did not start"):
        grader.verdict(r"\log 100", "2")


def test_bad_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="processes=0"):
        Grader(processes=0)


def test_easy_pairs_start_no_process_and_import_no_sympy() -> None:
    program = """
import sys, threading
from nemo_ext.grading.equal import Grader
with Grader(processes=2) as grader:
    assert [bool(v) for v in grader.grade([("5", "5.0"), (None, "1"), ("1,000", "1000")])] == [True, False, True]
    assert all(worker._process is None for worker in grader._workers)
    assert threading.active_count() == 1
assert not {"sympy", "math_verify"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
