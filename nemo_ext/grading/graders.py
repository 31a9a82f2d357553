r"""The graders by name: what each says of a pair before computer algebra is asked.

default       our rules, then math-verify for what they leave open
math_verify   math-verify alone, as current public pipelines grade
hendrycks     strings after the normalisation that the MATH paper's grader made customary; no values are compared
integer       whole numbers, as AIME and Numina grade: 016 is 16; integer_mod_1000 compares remainders

Stored generations can be graded again under another name.
"""

import re
from collections.abc import Callable

from nemo_ext.grading.equality.rules import MAX_ANSWER_CHARS, fast_verdict
from nemo_ext.grading.reading.normalise import normalise
from nemo_ext.grading.reading.number import number
from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

Rule = Callable[[str | None, str], Verdict | None]
NAMES = ("default", "math_verify", "hendrycks", "integer", "integer_mod_<n>")
_MODULAR = re.compile(r"integer_mod_([1-9]\d{0,9})")

_DRESSING = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\!|\\,|\\ |\\?\$|\\?%|\^\{?\\circ\}?|\s+")
_UNIT_TEXT = re.compile(r"\\(?:text|mbox)\{ .*\}$")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf)\{([^{}]*)\}")
_BARE_ROOT = re.compile(r"\\sqrt(\w)")
_BARE_FRACTION = re.compile(r"\\frac(\w)(\w)")
_FRACTION_TAIL = re.compile(r"(\\frac\{[^{}]*\})(\w)")
_SLASHED = re.compile(r"(-?\d+)/(\d+)")
_SHORT_NAME = re.compile(r"^\w{1,2}=")


def rule_of(name: str) -> Rule:
    """The rule of a grader; where it returns None, computer algebra decides.

    Raises:
        ValueError: no grader of this name.
    """
    if modular := _MODULAR.fullmatch(name):
        modulus = int(modular[1])
        return lambda predicted, expected: integer_verdict(predicted, expected, modulus)
    rules: dict[str, Rule] = {
        "default": fast_verdict,
        "math_verify": _only_missing,
        "hendrycks": hendrycks_verdict,
        "integer": integer_verdict,
    }
    if name not in rules:
        raise ValueError(f"grader: got {name!r}, choose one of {', '.join(NAMES)}")
    return rules[name]


def _only_missing(predicted: str | None, expected: str) -> Verdict | None:
    if predicted is None or not predicted.strip():
        return Verdict(DIFFERENT, "no_answer")
    if max(len(predicted), len(expected)) > MAX_ANSWER_CHARS:
        return Verdict(UNDECIDED, "too_long")
    return None


def hendrycks_verdict(predicted: str | None, expected: str) -> Verdict:
    """Equal where the normalised strings are; never undecided."""
    if predicted is None or not predicted.strip():
        return Verdict(DIFFERENT, "no_answer")
    same = predicted == expected or hendrycks_form(predicted) == hendrycks_form(expected)
    return Verdict(EQUAL if same else DIFFERENT, "hendrycks")


def hendrycks_form(answer: str) -> str:
    r"""Spaces, signs, degrees, percent and a trailing unit removed; \frac12, 1/2 and \dfrac{1}{2} in one form."""
    text = answer.strip().rstrip(".").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _TEXT.sub(r"\1", _UNIT_TEXT.sub("", text)) if len(text) <= MAX_ANSWER_CHARS else text
    text = _DRESSING.sub("", text)
    text = _BARE_FRACTION.sub(r"\\frac{\1}{\2}", _BARE_ROOT.sub(r"\\sqrt{\1}", text))
    text = _SHORT_NAME.sub("", _FRACTION_TAIL.sub(r"\1{\2}", text))
    text = _SLASHED.sub(r"\\frac{\1}{\2}", text) if _SLASHED.fullmatch(text) else text
    text = "0" + text if text.startswith(".") else text
    return "\\frac{1}{2}" if text == "0.5" else text


def integer_verdict(predicted: str | None, expected: str, modulus: int | None = None) -> Verdict:
    """Equal where both are the same whole number (modulo `modulus`); an answer that is not a whole number differs."""
    if predicted is None or not predicted.strip():
        return Verdict(DIFFERENT, "no_answer")
    ours, theirs = whole_number(predicted), whole_number(expected)
    if theirs is None:
        return Verdict(EQUAL if predicted == expected else UNDECIDED, "not_an_integer")
    if ours is None:
        return Verdict(DIFFERENT, "integer")
    same = ours == theirs if modulus is None else (ours - theirs) % modulus == 0
    return Verdict(EQUAL if same else DIFFERENT, "integer")


def whole_number(text: str) -> int | None:
    """The whole number an answer is, whatever its spelling; None where it is not one, digits in another base included."""
    if len(text) > MAX_ANSWER_CHARS:
        return None
    found = number(normalise(text))
    return int(found.value) if found is not None and found.value.denominator == 1 and not found.base else None
