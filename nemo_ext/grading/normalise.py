r"""Bring two spellings of an answer to one: LaTeX dressing removed, numbers read exactly.

    normalise(r"\dfrac{1}{2}.")  ->  r"\frac{1}{2}"
    number("1,250.50 dollars")   ->  Number(value=Fraction(2501, 2), decimals=2, unit="dollars")

Nothing here rounds or rescales: 5 and 500 stay two numbers.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_TEXT_MACRO = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_REMOVED = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\!|\\?\$")
_SPACE = re.compile(r"\\[,;: ]|~|\s+")
_LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_SINGLE_BRACED = re.compile(r"([_^])\{(\w)\}")
_FRAC_FIRST = re.compile(r"\\frac\s*(\w)")
_FRAC_SECOND = re.compile(r"(\\frac\{[^{}]*\})\s*(\w)")
_SQRT = re.compile(r"\\sqrt\s*(\w)")
_CHOICE = re.compile(r"\(([A-Z])\)")
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ '-][A-Za-z]+)*")
_REPLACED = (
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\%", "%"),
    ("{,}", ","),
    ("\u2212", "-"),
    ("\u00b0", "^\\circ"),
    ("\\degree", "^\\circ"),
    ("^{\\circ}", "^\\circ"),
)
_SMALL_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_SMALL_NUMBERS)}

_INTEGER = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+"
_NUMBER = re.compile(
    rf"""(?P<sign>[-+]?)(?:
        (?:(?P<whole>\d+)\ ?)?\\frac\{{(?P<top>[-+]?\d+)\}}\{{(?P<bottom>\d+)\}}
      | (?:(?P<whole2>\d+)\ )?(?P<top2>\d+)/(?P<bottom2>\d+)
      | (?P<integer>{_INTEGER.replace(" ", "[ ]")})?(?:\.(?P<decimals>\d*))?
    )(?:_(?P<base>\d+))?(?P<rest>\D.*)?""",
    re.VERBOSE,
)
_UNIT = re.compile(r"( ?)([A-Za-z]+)((?:[ ./-][A-Za-z]+\.?|\^\d)*)\.?")
_SHORT_UNITS = frozenset(("mm", "cm", "km", "kg", "mg", "ml", "ft", "in", "oz", "lb", "hr", "min", "mph"))
_NOT_UNITS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "mod", "and"))
_SCALES = {"percent": 1, "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_MAX_NUMBER_CHARS = 200  # Python refuses to read integers over 4,300 digits; no answer is near that


@dataclass(frozen=True)
class Number:
    """An exact value and how it was written."""

    value: Fraction
    decimals: int = 0  # digits after the point; 0 for integers and fractions
    digits: int = 0  # significant digits of a decimal
    percent: bool = False
    base: str = ""  # the subscript in 52_8
    unit: str = ""


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """One spelling for what LaTeX can write in several; case is kept except in answers made of words."""
    text = _TEXT_MACRO.sub(r" \1 ", text.strip())
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = _SPACE.sub(" ", _REMOVED.sub("", text))
    text = _SINGLE_BRACED.sub(r"\1\2", text)
    text = _SQRT.sub(r"\\sqrt{\1}", _FRAC_SECOND.sub(r"\1{\2}", _FRAC_FIRST.sub(r"\\frac{\1}", text)))
    text = _LOOSE_SPACE.sub("", text).rstrip(".,;:")
    choice = _CHOICE.fullmatch(text)
    if choice:
        return choice.group(1)
    if _WORDS.fullmatch(text):
        text = text.casefold()
        return _NUMBER_WORDS.get(text, text)
    return text


@lru_cache(maxsize=65536)
def number(text: str) -> Number | None:
    """Read a normalised answer as one exact number, or None when it is anything else.

    Reads thousands separators, leading zeros, decimals, simple and mixed fractions, percent, degrees, a base as
    subscript, currency signs, and a unit after the number.
    """
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    match = _NUMBER.fullmatch(text.lstrip("\u20ac\u00a3"))
    if match is None:
        return None
    value = _value(match)
    tail = _tail(match.group("rest") or "")
    if value is None or tail is None:
        return None
    scale, percent, unit = tail
    decimals = match.group("decimals") or ""
    return Number(
        value=value * scale,
        decimals=len(decimals),
        digits=len(((match.group("integer") or "") + decimals).lstrip("0")) if decimals else 0,
        percent=percent,
        base=match.group("base") or "",
        unit=unit,
    )


def _value(match: re.Match[str]) -> Fraction | None:
    """The signed value of a `_NUMBER` match, without unit; None for a bare sign, a bare point or x/0."""
    group = match.groupdict()
    top = group["top"] or group["top2"]
    if top is not None:
        bottom = int(group["bottom"] or group["bottom2"])
        whole = group["whole"] or group["whole2"]
        if bottom == 0 or (whole and top.startswith(("-", "+"))):
            return None
        value = int(whole or 0) + Fraction(int(top), bottom)
    elif group["integer"] or group["decimals"]:
        digits = (group["integer"] or "0").replace(",", "").replace(" ", "")
        value = Fraction(f"{digits}.{group['decimals'] or '0'}")
    else:
        return None
    return -value if group["sign"] == "-" else value


def _tail(rest: str) -> tuple[int, bool, str] | None:
    """(multiplier, is percent, unit) of what follows the digits; None when it is algebra rather than a unit."""
    if rest in ("", "^\\circ"):
        return 1, False, ""
    if rest == "%":
        return 1, True, ""
    match = _UNIT.fullmatch(rest)
    if match is None:
        return None
    space, word, more = match.groups()
    word = word.casefold()
    is_unit = word in _SHORT_UNITS or (space and len(word) >= 3 and word not in _NOT_UNITS)
    if not is_unit:
        return None
    if word in _SCALES:
        return _SCALES[word], word == "percent", more.strip().casefold()
    return 1, False, word + more.casefold()
