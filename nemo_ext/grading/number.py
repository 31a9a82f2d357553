r"""Read an answer as one exact number.

    number("1,250.50 dollars")  ->  Number(value=Fraction(2501, 2), decimals=2, unit="dollars")
    number(r"2\frac{1}{2}")     ->  Number(value=Fraction(5, 2))

Nothing here rounds or rescales: 5 and 500 stay two numbers.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_INTEGER = r"\d{1,3}(?:,[ ]?\d{3})+|\d{1,3}(?:[ ]\d{3})+|\d+"
_NUMBER = re.compile(
    rf"""(?P<sign>[-+]?)(?:
        (?:(?P<whole>\d+)\ ?)?\\frac\{{(?P<top>[-+]?\d+)\}}\{{(?P<bottom>\d+)\}}
      | (?:(?P<whole2>\d+)\ )?(?P<top2>\d+)/(?P<bottom2>\d+)
      | (?P<integer>{_INTEGER})?(?:\.(?P<decimals>\d*))?(?:[eE](?P<exponent>[-+]?\d{{1,3}}))?
    )(?:_(?:(?P<base>\d+)|\{{(?P<base2>\d+)\}}))?(?P<rest>\D.*)?""",
    re.VERBOSE | re.ASCII,
)
_TIMES_TEN = re.compile(r"(.+?)(?:\\times|\\cdot|\*|x)(?: )?10\^(?:\{([-+]?\d{1,3})\}|([-+]?\d))", re.ASCII)
_REPEATING = re.compile(r"(-?)(\d*)\.(\d*)\\(?:overline|bar)\{?(\d+)\}?", re.ASCII)
_UNIT = re.compile(r"( ?)([A-Za-z]+)((?:(?: |\.|/|-)[A-Za-z]+\.?|\^\d)*)\.?")
_SHORT_UNITS = frozenset(["mm", "cm", "km", "kg", "mg", "ml", "ft", "in", "oz", "lb", "lbs", "hr", "min", "mph"])
_LETTER_UNITS = frozenset("mgsLh")
_NOT_UNITS = frozenset(["sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "mod", "and"])
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


@lru_cache(maxsize=16384)
def number(text: str) -> Number | None:
    """Read a normalised answer as one exact number, or None when it is anything else.

    Reads thousands separators, leading zeros, decimals, simple and mixed fractions, powers of ten, percent, degrees,
    a base as subscript, currency signs, and a unit after the number.
    """
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    text = text.lstrip("\u20ac\u00a3")
    if scientific := _TIMES_TEN.fullmatch(text):
        return _scaled(scientific)
    if repeating := _REPEATING.fullmatch(text):
        return _repeated(repeating)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    value = _value(match)
    tail = _tail(match.group("rest") or "", is_spaced=match.group("bottom") is not None)
    if value is None or tail is None:
        return None
    scale, percent, unit = tail
    decimals = match.group("decimals") or ""
    exponent = int(match.group("exponent") or 0)
    return Number(
        value=value * scale * Fraction(10) ** exponent,
        decimals=0 if exponent or scale != 1 else len(decimals),
        digits=len(((match.group("integer") or "") + decimals).lstrip("0")) if decimals else 0,
        percent=percent,
        base=match.group("base") or match.group("base2") or "",
        unit=unit,
    )


def _repeated(match: re.Match[str]) -> Number:
    r"""`0.1\overline{6}` is 1/6."""
    sign, integer, first, period = match.groups()
    whole = Fraction(f"{integer or 0}.{first or 0}")
    value = whole + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(first))
    return Number(-value if sign else value)


def _scaled(match: re.Match[str]) -> Number | None:
    r"""`1.2\times10^3`, where what is before the sign is a plain number."""
    mantissa = number(match[1])
    if mantissa is None or mantissa.unit or mantissa.percent or mantissa.base:
        return None
    return Number(mantissa.value * Fraction(10) ** int(match[2] or match[3]))


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


def _tail(rest: str, *, is_spaced: bool) -> tuple[int, bool, str] | None:
    """(multiplier, is percent, unit) of what follows the digits; None when it is algebra rather than a unit.

    is_spaced: a brace parts number and unit as a space does.
    """
    if rest in ("", "^\\circ"):
        return 1, False, ""
    if rest == "%":
        return 1, True, ""
    match = _UNIT.fullmatch(rest)
    if match is None:
        return None
    space, written, more = match[1] or is_spaced, match[2], match[3]
    word = written.casefold()
    is_word = word in _SHORT_UNITS or (space and len(word) >= 3 and word not in _NOT_UNITS)
    if not is_word and not (space and written in _LETTER_UNITS):
        return None
    if word in _SCALES:
        return _SCALES[word], word == "percent", more.strip().casefold()
    return 1, False, (word if is_word else written) + more.casefold()
