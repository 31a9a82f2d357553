r"""Read an answer as one exact number.

    number("1,250.50 dollars")  ->  Number(value=Fraction(2501, 2), decimals=2, unit="dollars")
    number(r"2\frac{1}{2}")     ->  Number(value=Fraction(5, 2))

Nothing here rounds or rescales: 5 and 500 stay two numbers.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from nemo_ext.grading.reading.units import unit

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
_UNIT = re.compile(r"( ?)([A-Za-z]+)((?:(?:\.?[ /'-]|\.)[A-Za-z]+|\^(?:\d|\{-\d\}))*)\.?")
_SHORT_UNITS = frozenset(["mm", "cm", "km", "kg", "mg", "ml", "ft", "in", "oz", "lb", "lbs", "hr", "min", "mph"])
_LETTER_UNITS = frozenset("mgsLh")
_NO_UNIT_WORDS = "sin cos tan cot sec csc log exp mod and or if for when where unless to than"
_NOT_UNITS = frozenset(_NO_UNIT_WORDS.split())
_DEGREES = re.compile(r"(?:\^\\circ| degrees?) ?(?:([CF])(?:elsius|ahrenheit)?)?")
_LONG_WORD = re.compile(r"[A-Za-z]{4}")
_DOT_GROUPS = re.compile(r"([-+]?)(\d{1,3}(?:\.\d{3})+),(\d+)|([-+]?)(\d{1,3}(?:\.\d{3}){2,})", re.ASCII)
_QUOTE_GROUPS = re.compile(r"[-+]?\d{1,3}(?:'\d{3})+(?:\.\d+)?", re.ASCII)
_LAKHS = re.compile(r"[-+]?\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?", re.ASCII)
_MINUTES = re.compile(
    r"(-?)(\d+)\^\\circ ?(\d+(?:\.\d+)?)(?:'|\^\{?\\prime\}?)(?:(\d+(?:\.\d+)?)(?:''|\"))?", re.ASCII
)
_GOES_ON = re.compile(r"(-?)(\d{0,30})\.(\d{0,9}?)(\d{1,9}?)(\4+)\\ldots", re.ASCII)
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
    is_maybe_list: bool = False  # 10,00,000 may also be the three numbers 10, 0 and 0


@lru_cache(maxsize=16384)
def number(text: str) -> Number | None:
    """Read a normalised answer as one exact number, or None when it is anything else.

    Reads thousands separators, leading zeros, decimals, simple and mixed fractions, powers of ten, percent, degrees,
    a base as subscript, currency signs, and a unit after the number.
    """
    if len(text) > _MAX_NUMBER_CHARS:
        return None
    match = _NUMBER.fullmatch(text)
    value = None if match is None else _value(match)
    tail = None if match is None else _tail(match.group("rest") or "", is_spaced=match.group("bottom") is not None)
    if match is None or value is None or tail is None:
        return _other_spelling(text)
    scale, percent, words = tail
    decimals = match.group("decimals") or ""
    exponent = int(match.group("exponent") or 0)
    return Number(
        value=value * scale * Fraction(10) ** exponent,
        decimals=0 if exponent or scale != 1 else len(decimals),
        digits=len(((match.group("integer") or "") + decimals).lstrip("0")) if decimals else 0,
        percent=percent,
        base=match.group("base") or match.group("base2") or "",
        unit=words,
    )


def _other_spelling(text: str) -> Number | None:
    if "10^" in text and (scientific := _TIMES_TEN.fullmatch(text)):
        return _scaled(scientific)
    if "\\overline" in text or "\\bar" in text:
        repeating = _REPEATING.fullmatch(text)
        return _repeated(*repeating.groups()) if repeating else None
    if text.endswith("\\ldots"):
        goes_on = _GOES_ON.fullmatch(text)
        return _goes_on(goes_on) if goes_on else None
    if "\\circ" in text:
        angle = _MINUTES.fullmatch(text)
        return _angle(angle) if angle else None
    return _grouped(text)


def _grouped(text: str) -> Number | None:
    """12.345,67 and 1'000'000 as some countries write them, and India's 10,00,000."""
    if groups := _DOT_GROUPS.fullmatch(text):
        whole, decimals = (groups[2] or groups[5]).replace(".", ""), groups[3] or ""
        value = Fraction(f"{whole}.{decimals or 0}")
        negative = "-" in (groups[1], groups[4])
        return Number(
            -value if negative else value, len(decimals), len((whole + decimals).lstrip("0")) if decimals else 0
        )
    if _QUOTE_GROUPS.fullmatch(text):
        return number(text.replace("'", ""))
    if _LAKHS.fullmatch(text):
        return Number(Fraction(text.replace(",", "")), is_maybe_list=True)
    return None


def _goes_on(match: re.Match[str]) -> Number | None:
    r"""`0.1666\ldots` is 1/6; where no digits are seen to repeat, nobody knows what follows."""
    sign, integer, first, period, again = match.groups()
    return _repeated(sign, integer, first, period) if len(period + again) >= 3 else None


def _angle(match: re.Match[str]) -> Number:
    """22 degrees and 30 minutes, in degrees."""
    sign, degrees, minutes, seconds = match.groups()
    value = int(degrees) + Fraction(minutes) / 60 + Fraction(seconds or 0) / 3600
    return Number(-value if sign else value, unit="degrees")


def _repeated(sign: str, integer: str, first: str, period: str) -> Number:
    r"""`0.1\overline{6}` is 1/6."""
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
    if not rest:
        return 1, False, ""
    if rest[0] == "/" and unit(f"per {rest[1:]}"):
        return 1, False, f"per {rest[1:]}"
    if degrees := _DEGREES.fullmatch(rest):
        return 1, False, {"C": "celsius", "F": "fahrenheit", None: "degrees"}[degrees[1]]
    if rest == "%":
        return 1, True, ""
    match = _UNIT.fullmatch(rest)
    if match is None:
        return None
    space, written, more = match[1] or is_spaced, match[2], match[3]
    word = written.casefold()
    if word in _NOT_UNITS or not _NOT_UNITS.isdisjoint(more.split(" ")):
        return None
    if not (
        word in _SHORT_UNITS or (space and (len(word) >= 3 or written in _LETTER_UNITS or _is_short(written, more)))
    ):
        return None
    if word in _SCALES:
        return _SCALES[word], word == "percent", more.strip()
    return 1, False, written + more


def _is_short(written: str, more: str) -> bool:
    """rs, sq. feet, DS games."""
    return len(written) == 2 and (bool(unit(written + more)) or _LONG_WORD.search(more) is not None)
