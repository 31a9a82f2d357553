"""The verdicts that need no computer algebra: equal strings, words, options, times, numbers, and forms.

Every rule stands with an example in the table "When two answers are equal" of recipes/CURATION.md.
"""

import re
from fractions import Fraction
from functools import lru_cache

from nemo_ext.grading.comparison import compare, is_between
from nemo_ext.grading.normalise import normalise
from nemo_ext.grading.number import Number, number
from nemo_ext.grading.units import unit
from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

MAX_ANSWER_CHARS = 1000
_WORD_ANSWER = re.compile(r"[A-Za-z ,.'!?-]*[A-Za-z]{4,}[A-Za-z ,.'!?-]*|[A-Z]{2,}")
_WORD_BREAK = re.compile(r",(?: ?and )?| and |;")
_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?\b|sqrt|log|exp")
_ASSIGNMENT = re.compile(r"^[A-Za-z](?:\([a-z]\))?=")
_APPLIED = re.compile(r"^([A-Za-z])\([a-z]\)=")
_MODULUS = re.compile(r"(?:\\pmod|\\bmod| mod|\(mod)[ {]*\d+[})]*$")
_OPTION = re.compile(r"(?:\(([A-Ja-j])\)|([A-J])[.):]) ?(.*)")
_LETTER = re.compile(r"[A-Ja-j]")
_TIME = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?: ?([ap])\.? ?m\.?)?", re.IGNORECASE | re.ASCII)
_RATIO = re.compile(r"(\d{1,9}):(\d{1,9})", re.ASCII)
_TRAILING_UNIT = re.compile(r"(?<![A-Za-z])([A-Za-z]{2,}(?:[ ./][A-Za-z]+){0,2}(?:\^\d)?)\.?$")
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
    left, right = _without_what_one_has(left, right)
    if left == right:
        return Verdict(EQUAL, "normalised")
    left_number, right_number = number(left), number(right)
    if left_number is not None and right_number is not None:
        return _compare_numbers(left_number, right_number)
    for rule in (_compare_options, _compare_times, _compare_words):
        if (found := rule(left, right)) is not None:
            return found
    return _compare_values(left, right, left_number or right_number)


def _without_what_one_has(left: str, right: str) -> tuple[str, str]:
    """Drop "x=", "f(x)=" or "(mod 7)" where only one of the two answers has it."""
    if ("=" in left) != ("=" in right):
        left, right = _ASSIGNMENT.sub("", left, count=1), _ASSIGNMENT.sub("", right, count=1)
    if ("mod" in left) != ("mod" in right):
        left, right = _MODULUS.sub("", left), _MODULUS.sub("", right)
    return _APPLIED.sub(r"\1=", left), _APPLIED.sub(r"\1=", right)


def _compare_numbers(left: Number, right: Number) -> Verdict | None:
    if left.unit and right.unit and left.unit != right.unit:
        ours, theirs = unit(left.unit), unit(right.unit)
        if ours is not None and theirs is not None:
            same = ours.dimension == theirs.dimension and left.value * ours.factor == right.value * theirs.factor
            return Verdict(EQUAL if same else DIFFERENT, "unit")
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
    if gap <= min(_FLOAT_NOISE * max(abs(left.value), abs(right.value)), _MAX_NOISE):
        return True
    coarse = min((n for n in (left, right) if n.decimals), key=lambda n: n.decimals)
    return coarse.digits >= _ROUNDED_DIGITS and gap * 2 * 10**coarse.decimals <= 1


def plain_value(answer: str) -> Fraction | int | None:
    """The value by which alone this answer is compared with another that has one; None of answers with a unit, percent,
    base or many digits, and of everything that is no number."""
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
    if all(letters) and (_LETTER.fullmatch(left) or _LETTER.fullmatch(right)):
        return Verdict(EQUAL if letters[0] == letters[1] else DIFFERENT, "option")
    for ours, theirs in ((left, right), (right, left)):
        option = _OPTION.fullmatch(ours)
        if option and option[3] and not _OPTION.fullmatch(theirs):
            return fast_verdict(option[3], theirs)
    return None


def _option_letter(text: str) -> str:
    if _LETTER.fullmatch(text):
        return text.upper()
    option = _OPTION.fullmatch(text)
    return (option[1] or option[2]).upper() if option else ""


def _compare_times(left: str, right: str) -> Verdict | None:
    """11:30 answers 11:30 AM and 2:30 PM is 14:30; other a:b are ratios."""
    ours, theirs = _TIME.fullmatch(left), _TIME.fullmatch(right)
    if ours and theirs:
        return Verdict(EQUAL if _hours(ours) & _hours(theirs) else DIFFERENT, "time")
    ratios = [_RATIO.fullmatch(text) for text in (left, right)]
    if not any(ratios):
        return None
    values = []
    for text, ratio in zip((left, right), ratios, strict=True):
        if ratio and int(ratio[2]):
            values.append(Fraction(int(ratio[1]), int(ratio[2])))
        elif plain := number(text):
            values.append(plain.value)
    if len(values) < 2:
        return None
    return Verdict(EQUAL if values[0] == values[1] else DIFFERENT, "ratio")


def _hours(time: re.Match[str]) -> set[tuple[int, int]]:
    """The times of day meant; without AM or PM an hour up to 12 may be either."""
    hour, minute, half = int(time[1]) % 24, int(time[2]), (time[3] or "").lower()
    if half:
        return {(hour % 12 + (12 if half == "p" else 0), minute)}
    return {(hour, minute), (hour + 12, minute)} if 1 <= hour < 12 else {(hour, minute), (hour % 12, minute)}


def _compare_words(left: str, right: str) -> Verdict | None:
    """Computer algebra would read a word as a product of its letters, so "seat" as equal to "east"."""
    texts = [_WORD_ANSWER.fullmatch(each) is not None and not _FUNCTION.match(each) for each in (left, right)]
    if not any(texts):
        return None
    same = _words(left) == _words(right)
    return Verdict(EQUAL if same else DIFFERENT, "text")


def _words(text: str) -> frozenset[str]:
    parts = (part.strip(" .!?") for part in _WORD_BREAK.split(text.casefold()))
    return frozenset(part.removeprefix("the ") for part in parts if part)


def _compare_values(left: str, right: str, plain: Number | None) -> Verdict | None:
    if plain is not None and plain.base:  # 52_8 is nothing but the number 52 in base 8
        return Verdict(DIFFERENT, "numeric")
    (left, left_unit), (right, right_unit) = _split_unit(left), _split_unit(right)
    if left_unit and right_unit and unit(left_unit) != unit(right_unit):
        return None
    found = compare(left, right)
    # 3.14159 is pi to six digits; 3.14 is not
    if (
        found == Verdict(DIFFERENT, "value")
        and plain is not None
        and plain.digits >= _ROUNDED_DIGITS
        and plain.decimals
    ):
        half = Fraction(1, 2 * 10**plain.decimals)
        within = is_between(left if number(right) == plain else right, plain.value - half, plain.value + half)
        return Verdict(EQUAL, "rounded") if within else found
    return found


def _split_unit(text: str) -> tuple[str, str]:
    r"""(value, unit) of "5\sqrt{2} cm"; the unit is "" when it is none we know."""
    found = _TRAILING_UNIT.search(text)
    if found is None or not text[: found.start()].strip() or text[found.start() - 1] == "\\":
        return text, ""
    word = found[1].casefold()
    if word in ("units", "square units", "unit", "cubic units"):
        return text[: found.start()].strip(), ""
    return (text[: found.start()].strip(), word) if unit(word) else (text, "")
