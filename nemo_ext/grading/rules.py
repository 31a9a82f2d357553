"""The verdicts that need no computer algebra: equal strings, equal normal forms, numbers, words."""

import re
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from nemo_ext.grading.normalise import Number, normalise, number


class Equality(StrEnum):
    """Three answers, since a comparison that ran out of time has shown nothing."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


EQUAL, DIFFERENT, UNDECIDED = Equality.EQUAL, Equality.DIFFERENT, Equality.UNDECIDED


@dataclass(frozen=True)
class Verdict:
    """What was decided, and by which rule."""

    equality: Equality
    method: str

    def __bool__(self) -> bool:
        """True only for EQUAL, so an undecided pair counts as wrong."""
        return self.equality is EQUAL


MAX_ANSWER_CHARS = 1000
_WORD_ANSWER = re.compile(r"[A-Za-z ,.'!?-]*[A-Za-z]{4,}[A-Za-z ,.'!?-]*")
_ASSIGNMENT = re.compile(r"^[A-Za-z]=")
_ROUNDED_DIGITS = 6  # a decimal stands for a number it rounds only when it gives this many significant digits
_FLOAT_NOISE = Fraction(1, 10**9)


def fast_verdict(predicted: str | None, expected: str) -> Verdict | None:
    """The verdict when a cheap rule can give one, else None (then ask computer algebra)."""
    if predicted is None or not predicted.strip():
        return Verdict(DIFFERENT, "no_answer")
    if predicted == expected:
        return Verdict(EQUAL, "exact")
    if max(len(predicted), len(expected)) > MAX_ANSWER_CHARS:
        return Verdict(UNDECIDED, "too_long")
    left, right = normalise(predicted), normalise(expected)
    if left == right:
        return Verdict(EQUAL, "normalised")
    left, right = _without_assignment(left, right)
    left_number, right_number = number(left), number(right)
    if left_number is not None and right_number is not None:
        return _compare_numbers(left_number, right_number)
    # Computer algebra would read a word as a product of its letters, so "seat" as equal to "east".
    if _WORD_ANSWER.fullmatch(left) or _WORD_ANSWER.fullmatch(right):
        return Verdict(DIFFERENT, "text")
    return None


def _without_assignment(left: str, right: str) -> tuple[str, str]:
    """Drop "x=" when only one of the two answers has it."""
    if ("=" in left) == ("=" in right):
        return left, right
    return _ASSIGNMENT.sub("", left, count=1), _ASSIGNMENT.sub("", right, count=1)


def _compare_numbers(left: Number, right: Number) -> Verdict | None:
    if left.unit and right.unit and left.unit[0] != right.unit[0]:
        return None  # "5 cents" and "5 dollars"; but also "4 ft^2" and "4 square feet"
    if left.base and right.base and left.base != right.base:
        return Verdict(DIFFERENT, "numeric")
    if _same_value(left, right):
        return Verdict(EQUAL, "numeric")
    # "10%" answers a question for a percentage (10) and one for a share (0.1); a bare number is never rescaled.
    if left.percent != right.percent:
        share = left if left.percent else right
        other = right if left.percent else left
        if share.value / 100 == other.value:
            return Verdict(EQUAL, "percent")
    return Verdict(DIFFERENT, "numeric")


def _same_value(left: Number, right: Number) -> bool:
    """Exact for integers and fractions; a decimal also equals what it is the rounding of, given enough digits."""
    if left.value == right.value:
        return True
    if not (left.decimals or right.decimals):
        return False
    gap = abs(left.value - right.value)
    if gap <= _FLOAT_NOISE * max(abs(left.value), abs(right.value)):
        return True
    coarse = min((n for n in (left, right) if n.decimals), key=lambda n: n.decimals)
    return coarse.digits >= _ROUNDED_DIGITS and gap * 2 * 10**coarse.decimals <= 1
