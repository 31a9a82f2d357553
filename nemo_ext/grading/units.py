"""Units after a number: which word means which, and how many of the base unit it is.

A unit that only one of two answers has is ignored ("18 dollars" answers "18"). Two known units of one dimension are
converted ("60 minutes" is "1 hour"); of two dimensions they differ. Other words ("18 students") never decide.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


class Unit(NamedTuple):
    """`factor` of the dimension's base unit."""

    dimension: str
    factor: Fraction


_LENGTH = {
    "mm": ("1/1000", "millimeter millimetre"),
    "cm": ("1/100", "centimeter centimetre"),
    "m": ("1", "meter metre"),
    "km": ("1000", "kilometer kilometre"),
    "in": ("127/5000", "inch inches"),
    "ft": ("381/1250", "foot feet"),
    "yd": ("1143/1250", "yard"),
    "mi": ("201168/125", "mile"),
}
_OTHER = {
    "time": {
        "s": ("1", "sec second"),
        "min": ("60", "minute"),
        "h": ("3600", "hr hour"),
        "day": ("86400", "day"),
        "week": ("604800", "week"),
    },
    "mass": {
        "mg": ("1/1000", "milligram"),
        "g": ("1", "gram"),
        "kg": ("1000", "kilogram"),
        "oz": ("45359237/1600000", "ounce"),
        "lb": ("45359237/100000", "lbs pound"),
    },
    "volume": {"ml": ("1/1000", "milliliter millilitre"), "L": ("1", "liter litre")},
    "money": {"cent": ("1/100", "cent"), "dollar": ("1", "dollar usd")},
    "angle": {"deg": ("1", "degree"), "rad": ("1", "radian")},
}
_UNITS: dict[str, Unit] = {}
for _dimension, _table in {"length": _LENGTH, **_OTHER}.items():
    for _short, (_factor, _names) in _table.items():
        # A radian is no rational number of degrees, so the two are never converted.
        _unit = Unit("radian" if _short == "rad" else _dimension, Fraction(_factor))
        for _name in (_short, *_names.split()):
            _UNITS[_name] = _UNITS[_name if len(_name) < 3 else f"{_name}s"] = _unit
_SQUARE = re.compile(r"(?:square|sq\.?) (.+)")
_CUBIC = re.compile(r"(?:cubic|cu\.?) (.+)")
_POWER = re.compile(r"(.+?)\^(\d)")
_RATE = re.compile(r"(.+?)(?:/| per | an? )(.+)")
_WRITTEN_SHORT = {"mph": "mi/h", "kmh": "km/h", "kph": "km/h"}


@lru_cache(maxsize=4096)
def unit(text: str) -> Unit | None:
    """The unit these words name, or None when they are no unit of this table."""
    text = _WRITTEN_SHORT.get(text.strip(" ."), text.strip(" ."))
    if (rate := _RATE.fullmatch(text)) and (top := unit(rate[1])) and (bottom := unit(rate[2])):
        return Unit(f"{top.dimension}/{bottom.dimension}", top.factor / bottom.factor)
    for pattern, power in ((_SQUARE, 2), (_CUBIC, 3)):
        if (named := pattern.fullmatch(text)) and (base := _plain(named[1])):
            return Unit(f"{base.dimension}^{power}", base.factor**power)
    if (raised := _POWER.fullmatch(text)) and (base := _plain(raised[1])):
        return Unit(f"{base.dimension}^{raised[2]}", base.factor ** int(raised[2]))
    return _plain(text)


def _plain(text: str) -> Unit | None:
    return _UNITS.get(text) or _UNITS.get(text.casefold())
