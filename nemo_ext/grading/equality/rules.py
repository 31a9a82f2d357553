"""The verdicts that need no computer algebra: equal strings, words, options, times, numbers, and forms.

Every rule stands with an example in the table "When two answers are equal" of recipes/guides/curation.md.
"""

import re
from fractions import Fraction
from functools import lru_cache

from nemo_ext.grading.algebra.readable import reads_whole
from nemo_ext.grading.equality.clock import time_of_day
from nemo_ext.grading.equality.comparison import compare, compare_scaled, is_between
from nemo_ext.grading.equality.congruence import compare_congruences
from nemo_ext.grading.equality.phrases import compare_phrases
from nemo_ext.grading.equality.piecewise import compare_cases, listed
from nemo_ext.grading.equality.quantities import compare_quantities
from nemo_ext.grading.equality.worded import compare_worded, contrary
from nemo_ext.grading.reading.normalise import normalise
from nemo_ext.grading.reading.number import Number, number
from nemo_ext.grading.reading.units import factors, leading_unit, split_unit, unit
from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

MAX_ANSWER_CHARS = 1000
_NAME = (  # f'(x), a_n, \angle ABC, \frac{dy}{dx}, \overline{AB}, (x,y), a:b:c
    r"(?:\\?m? ?\\angle ?)?[A-Za-z]{1,3}'{0,3}(?:_(?:\w|\{\w+\}))?(?:\([A-Za-z, \\|]{1,9}\))?"
    r"|\\frac\{d\^?\d?[a-z]\}\{d[a-z]\^?\d?\}|\\(?:overline|vec|hat)\{[A-Za-z]{1,2}\}"
    r"|\([a-z](?:,[a-z]){1,3}\)|[A-Za-z](?::[A-Za-z])+"
    r"|[A-Za-z]{4,}(?: [A-Za-z]+){0,4}|\\(?:sin|cos|tan|log|ln)(?:\\[a-z]+|[a-z])|\|?[A-Z]{2}\|?"
)
_ASSIGNMENT = re.compile(rf"^(?:{_NAME})=(?=.)")
_ASSIGNED = re.compile(rf"=(?:{_NAME})$")
_APPLIED = re.compile(r"^([A-Za-z])\([a-z]\)=")
_MODULUS = re.compile(r"(?:\\pmod|\\bmod| mod|\(mod)[ {]*\d+[})]*$")
_ROUGHLY = re.compile(r"^(?:\\approx|\\simeq|\\sim|\u2248|approximately |about |approx\.? )")
_INTEGERS = re.compile(
    r"(?:,|(?<=[^A-Za-z]))? ?(?:for|where|with)? ?(?:(?:all|any|some|every|each) )?"
    r"(?:integers? ?[a-z]|[a-z] is an(?:y)? integer|[a-z]\\in ?\\mathbb\{Z\})$"
)
_OPTION = re.compile(
    r"(?:(?i:option|choice|answer) ?)?(?:\(([A-Ja-j])\)|([A-J])[.):]) ?((?!,|;|and |or )(?:(?!\(?[A-J][.):]).)*)"
)
_NAMED_LETTER = re.compile(r"(?:(?i:option|choice) ?)?([A-Ja-j])")
_CLOCK = re.compile(r"[A-Za-z]|:\d\d:")  # without either, 9:30 may be a ratio
_REMAINDER = re.compile(r"(-?\d{1,30}) ?(?:[Rr]|remainder|rem\.?) ?(\d{1,30})", re.ASCII)
_RANGE = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", re.ASCII)
_SYNONYMS = {
    "no solution": "\\emptyset", "no solutions": "\\emptyset", "no real solutions": "\\emptyset", "empty set": "\\emptyset",
    "the empty set": "\\emptyset", "\\varnothing": "\\emptyset", "\\{\\}": "\\emptyset", "infinity": "\\infty",
    "all real numbers": "(-\\infty,\\infty)", "all reals": "(-\\infty,\\infty)", "\\mathbb{R}": "(-\\infty,\\infty)",
    "negative infinity": "-\\infty", "dne": "does not exist", "t": "true", "f": "false", "units": "",
}  # fmt: skip
_ROUNDED_DIGITS = 6  # a decimal stands for a number it rounds only when it gives this many significant digits
_FLOAT_NOISE, _MAX_NOISE = Fraction(1, 10**9), Fraction(1, 10**6)
_PLAIN_DENOMINATOR = 10**4


def fast_verdict(predicted: str | None, expected: str) -> Verdict | None:
    """The verdict when a rule can give one, else None (then ask computer algebra)."""
    if predicted is None or not predicted.strip():
        return Verdict(DIFFERENT, "no_answer")
    if predicted == expected:
        return Verdict(EQUAL, "exact")
    if max(len(predicted), len(expected)) > MAX_ANSWER_CHARS:
        return Verdict(UNDECIDED, "too_long")
    left, right = normalise(predicted), normalise(expected)
    if left == right:
        return Verdict(EQUAL, "normalised")
    return _by_rule(left, right)


@lru_cache(maxsize=16384)
def _by_rule(left: str, right: str) -> Verdict | None:
    left, right = _SYNONYMS.get(left, left), _SYNONYMS.get(right, right)
    left, right = _without_what_one_has(listed(left), listed(right))
    if left == right:
        return Verdict(EQUAL, "normalised")
    left_number, right_number = number(left), number(right)
    if left_number and right_number and not (left_number.is_maybe_list and right_number.is_maybe_list):
        return _compare_numbers(left_number, right_number)
    for rule in (_compare_options, _compare_times, compare_phrases, compare_congruences, _compare_remainders):
        if (found := rule(left, right)) is not None:
            return found
    return _compare_values(left, right, left_number, right_number)


def _without_what_one_has(left: str, right: str) -> tuple[str, str]:
    """Drop "x=", "f'(x)=", "=x", "(mod 7)", "for integers k" or "about" where only one of the two answers has it."""
    left, right = _ROUGHLY.sub("", left), _ROUGHLY.sub("", right)
    if ("=" in left) != ("=" in right):
        left, right = _unnamed(left), _unnamed(right)
    if ("mod" in left) != ("mod" in right) and "\\equiv" not in left + right:
        left, right = _MODULUS.sub("", left), _MODULUS.sub("", right)
    if _says_integer(left) != _says_integer(right):
        left, right = _INTEGERS.sub("", left), _INTEGERS.sub("", right)
    return _APPLIED.sub(r"\1=", left), _APPLIED.sub(r"\1=", right)


def _unnamed(text: str) -> str:
    """Without the one name in "x=5" or "5=x"; two names, as in "x=1, y=2", stay."""
    if text.count("=") != 1 and ("," in text or " or " in text or " and " in text):
        return text
    return _ASSIGNED.sub("", text) if _ASSIGNED.search(text) else _ASSIGNMENT.sub("", text)


def _says_integer(text: str) -> bool:
    return "integer" in text or "\\mathbb{Z}" in text


def _compare_numbers(left: Number, right: Number) -> Verdict | None:
    if left.unit and right.unit and left.unit != right.unit:
        if contrary(left.unit, right.unit):
            return Verdict(DIFFERENT, "words")
        (ours, _), (theirs, _) = leading_unit(left.unit), leading_unit(right.unit)
        if ours and theirs:
            same = any(left.value * factor == right.value for factor in factors(ours, theirs))
            return Verdict(EQUAL if same else DIFFERENT, "unit")
    if left.percent != right.percent and unit((left if right.percent else right).unit):
        return Verdict(DIFFERENT, "unit")
    if left.base and right.base and left.base != right.base:
        same = _in_base(left) == _in_base(right) is not None
        return Verdict(EQUAL if same else DIFFERENT, "numeric")
    if _same_value(left, right):
        return Verdict(EQUAL, "numeric")
    # "10%" answers a question for a percentage (10) and one for a share (0.1); a bare number is never rescaled.
    if left.percent != right.percent:
        share = left if left.percent else right
        other = right if left.percent else left
        if share.value / 100 == other.value:
            return Verdict(EQUAL, "percent")
    return Verdict(DIFFERENT, "numeric")


def _in_base(written: Number) -> int | None:
    """The value of the digits; None where the base has no such digit."""
    base, digits = int(written.base), str(written.value)
    return int(digits, base) if base <= 36 and digits.isdecimal() and int(max(digits)) < base else None


def _same_value(left: Number, right: Number) -> bool:
    """Exact for integers and fractions; a decimal also equals what it is the rounding of, given enough digits."""
    if left.value == right.value:
        return True
    if not (left.decimals or right.decimals):
        return False
    gap = abs(left.value - right.value)
    if gap <= min(_FLOAT_NOISE * max(abs(left.value), abs(right.value)), _MAX_NOISE):
        return True
    coarse = min((n for n in (left, right) if n.decimals), key=lambda n: n.decimals)
    return coarse.digits >= _ROUNDED_DIGITS and gap * 2 * 10**coarse.decimals <= 1


def plain_value(answer: str) -> Fraction | int | None:
    """The value by which alone this answer is compared with another that has one; None of answers with a unit, percent,
    base or many digits, and of everything that is not a number."""
    if answer.isdecimal() and answer.isascii() and len(answer) < 100:
        return int(answer)
    if len(answer) > MAX_ANSWER_CHARS:
        return None
    found = number(_ASSIGNMENT.sub("", normalise(answer), count=1))
    if found is None or found.unit or found.percent or found.base or found.digits >= _ROUNDED_DIGITS:
        return None
    return found.value if found.value.denominator <= _PLAIN_DENOMINATOR else None


def _compare_options(left: str, right: str) -> Verdict | None:
    """Option C is written C, (C), C. or with the option's text behind it, by which it may also be answered."""
    letters = _option_letter(left), _option_letter(right)
    if all(letters) and (_NAMED_LETTER.fullmatch(left) or _NAMED_LETTER.fullmatch(right)):
        return Verdict(EQUAL if letters[0] == letters[1] else DIFFERENT, "option")
    for ours, theirs in ((left, right), (right, left)):
        option = _OPTION.fullmatch(ours)
        if option and option[3] and not _OPTION.fullmatch(theirs):
            return fast_verdict(option[3], theirs)
    return None


def _option_letter(text: str) -> str:
    if letter := _NAMED_LETTER.fullmatch(text):
        return letter[1].upper()
    option = _OPTION.fullmatch(text)
    return (option[1] or option[2]).upper() if option else ""


def _compare_times(left: str, right: str) -> Verdict | None:
    """11:30 answers 11:30 AM and 2:30 PM is 14:30; other a:b are ratios."""
    ours, theirs = time_of_day(left), time_of_day(right)
    if ours is None or theirs is None:
        time, other = (left, right) if ours else (right, left)
        is_other = (ours or theirs) and _CLOCK.search(time) and number(other)
        return Verdict(DIFFERENT, "time") if is_other and not time.startswith(other) else None
    return Verdict(EQUAL if ours & theirs else DIFFERENT, "time")


def _compare_remainders(left: str, right: str) -> Verdict | None:
    """7 R 4 is quotient and remainder, and 5-7 beside 6-8 a range: neither is a product or a difference."""
    ours, theirs = _REMAINDER.fullmatch(left), _REMAINDER.fullmatch(right)
    if ours and theirs:
        same = [int(part) for part in ours.groups()] == [int(part) for part in theirs.groups()]
        return Verdict(EQUAL if same else DIFFERENT, "remainder")
    if (ours := _RANGE.fullmatch(left)) and (theirs := _RANGE.fullmatch(right)):
        same = [Fraction(part) for part in ours.groups()] == [Fraction(part) for part in theirs.groups()]
        return Verdict(EQUAL, "range") if same else Verdict(UNDECIDED, "range")
    return None


def _compare_values(left: str, right: str, ours: Number | None, theirs: Number | None) -> Verdict | None:
    plain = ours or theirs
    if plain is not None and plain.base:  # 52_8 is nothing but the number 52 in base 8
        return Verdict(DIFFERENT, "numeric")
    for found in (compare_quantities(left, right), compare_cases(left, right, fast_verdict)):
        if found is not None:
            return found
    (left, left_unit), (right, right_unit) = _valued(left, ours), _valued(right, theirs)
    found = _compare_forms(left, right, left_unit, right_unit)
    if plain is not None and plain.percent and not found:  # of \frac{\sqrt{4}}{20}, 10% is the share
        share = compare_scaled(*((left, right) if ours else (right, left)), Fraction(1, 100))
        found = share if share else found
    if found is None:
        found = compare_worded(left, right, fast_verdict)
    # 3.14159 is pi to six digits; 3.14 is not
    if (
        found == Verdict(DIFFERENT, "value")
        and plain is not None
        and plain.digits >= _ROUNDED_DIGITS
        and plain.decimals
    ):
        half = Fraction(1, 2 * 10**plain.decimals)
        within = is_between(right if ours else left, plain.value - half, plain.value + half)
        return Verdict(EQUAL, "rounded") if within else found
    if found is None and not (reads_whole(left) and reads_whole(right)):
        return Verdict(UNDECIDED, "not_read")
    return found


def _valued(text: str, plain: Number | None) -> tuple[str, str]:
    """(value, unit); 2 million is worked out, and a known unit behind an expression set apart."""
    if plain is None or plain.is_maybe_list:
        return split_unit(text)
    top, bottom = plain.value.as_integer_ratio()
    known = plain.unit if unit(plain.unit) else ""
    return (str(top) if bottom == 1 else f"{'-' * (top < 0)}\\frac{{{abs(top)}}}{{{bottom}}}"), known


def _compare_forms(left: str, right: str, left_unit: str, right_unit: str) -> Verdict | None:
    if not left_unit or not right_unit or left_unit == right_unit:
        return compare(left, right)
    each = factors(unit(left_unit), unit(right_unit))
    if not each:
        return Verdict(DIFFERENT, "unit")
    found = [compare_scaled(left, right, factor) for factor in each]
    decided = [verdict for verdict in found if verdict is not None]
    return next((verdict for verdict in decided if verdict), decided[0] if decided else Verdict(UNDECIDED, "unit"))
