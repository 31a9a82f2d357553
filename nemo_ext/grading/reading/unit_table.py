"""The units that answers have: names, sizes and dimensions.

Sizes are exact: lengths in meters, times in seconds, masses in grams, volumes in cubic meters. A name with two readings
(a short ton or a metric one, an ounce of mass or of volume, a year of 12 months, 365 days or 52 weeks) has both.
"""

from fractions import Fraction
from typing import NamedTuple

Dimension = tuple[tuple[str, int], ...]


class Unit(NamedTuple):
    """`factor` times the product of the base units in `dimension`, such as (("length", 1), ("time", -1))."""

    dimension: Dimension
    factor: Fraction


# dimension: {size: names}; the plural in -s is added
_SIZES = {
    "length=1": {
        "1": "meter metre", "127/5000": "inch inches in", "381/1250": "foot feet ft", "1143/1250": "yard yd",
        "201168/125": "mile mi",
    },
    "time=1": {
        "1": "second sec", "60": "minute min", "3600": "hour hr", "86400": "day", "604800": "week wk",
        "1209600": "fortnight", "31536000": "year yr", "31449600": "year yr",
    },
    "month=1": {"1": "month", "12": "year yr", "120": "decade", "1200": "century centuries"},
    "mass=1": {
        "1": "gram", "45359237/1600000": "ounce oz", "45359237/100000": "pound lb lbs", "45359237/50": "ton",
        "1000000": "tonne ton", "635029318/100000": "stone",
    },
    "length=3": {
        "1/1000": "liter litre", "473176473/1000000000000": "pint pt", "473176473/500000000000": "quart qt",
        "473176473/125000000000": "gallon gal", "473176473/2000000000000": "cup",
        "473176473/16000000000000": "fluid_ounce fl_oz ounce oz", "473176473/32000000000000": "tablespoon tbsp",
        "157725491/32000000000000": "teaspoon tsp",
    },
    "length=2": {"10000": "hectare", "316160658/78125": "acre"},
    "dollar=1": {"1": "dollar usd", "1/100": "cent penny pennies", "1/20": "nickel", "1/10": "dime", "1/4": "quarter"},
    "euro=1": {"1": "euro eur", "1/100": "cent"},
    "sterling=1": {"1": "gbp sterling"},
    "rupee=1": {"1": "rupee inr rs"},
    "yen=1": {"1": "yen jpy"},
    "yuan=1": {"1": "yuan cny rmb"},
    "angle=1": {"1": "degree deg"},
    "radian=1": {"1": "radian rad"},  # no rational number of degrees, so the two are never converted
    "temperature=1": {"1": "kelvin"},
    "amount=1": {"1": "mole mol"},
    "data=1": {"1": "byte"},
    "current=1": {"1": "ampere amp"},
    "current=1 time=1": {"1": "coulomb"},
    "celsius=1": {"1": "celsius"},
    "fahrenheit=1": {"1": "fahrenheit"},
    "time=-1": {"1": "hertz"},
    "mass=1 length=1 time=-2": {"1000": "newton"},
    "mass=1 length=-1 time=-2": {"1000": "pascal"},
    "mass=1 length=2 time=-2": {"1000": "joule", "4184": "calorie"},
    "mass=1 length=2 time=-3": {"1000": "watt"},
    "mass=1 length=2 time=-3 current=-1": {"1000": "volt"},
    "mass=1 length=2 time=-3 current=-2": {"1000": "ohm"},
}  # fmt: skip
_PREFIXES = {"kilo": 3, "centi": -2, "milli": -3, "mega": 6, "giga": 9, "deci": -1, "micro": -6, "nano": -9}
_PREFIXED = (
    "meter metre gram liter litre second newton pascal joule calorie watt volt ohm ampere amp coulomb hertz byte"
)
# Symbols stand for the names above where \text or \mathrm says that they are not variables.
_SYMBOLS = {
    "m": "meter", "g": "gram", "s": "second", "h": "hour", "L": "liter", "l": "liter", "N": "newton", "Pa": "pascal",
    "J": "joule", "W": "watt", "V": "volt", "A": "ampere", "C": "coulomb", "Hz": "hertz", "cal": "calorie", "B": "byte",
    "K": "kelvin", "mol": "mole",
}  # fmt: skip
_ABBREVIATIONS = {
    "yd": "yard", "mi": "mile", "ft": "foot", "lb": "pound", "oz": "ounce", "yr": "year", "hr": "hour", "wk": "week",
    "qt": "quart", "pt": "pint", "rs": "rupee", "Rs": "rupee",
}  # fmt: skip
_SYMBOL_PREFIXES = {"k": "kilo", "c": "centi", "m": "milli", "M": "mega", "G": "giga", "d": "deci", "n": "nano"}
_NOT_PREFIXED = ("h", "K", "mol")
# Of two letters, these are units wherever they stand; "mn" is a product unless \text says otherwise.
BARE = frozenset(["mm", "cm", "km", "kg", "mg", "ml", "mL", "ft", "in", "oz", "lb", "hr"])


def _named() -> dict[str, list[Unit]]:
    named: dict[str, list[Unit]] = {}
    for written, sizes in _SIZES.items():
        powers = (part.split("=") for part in written.split())
        dimension = tuple(sorted((base, int(power)) for base, power in powers))
        for size, names in sizes.items():
            for name in names.replace("_", " ").split(" ") if "_" not in names else _spaced(names):
                found = Unit(dimension, Fraction(size))
                for spelling in {name, f"{name}s"}:
                    named.setdefault(spelling, []).append(found)
    for name in _PREFIXED.split():
        for prefix, power in _PREFIXES.items():
            larger = [Unit(each.dimension, each.factor * Fraction(10) ** power) for each in named[name]]
            named[prefix + name] = named[f"{prefix}{name}s"] = larger
    return named


def _spaced(names: str) -> list[str]:
    return [name.replace("_", " ") for name in names.split()]


def _symbols() -> dict[str, str]:
    found = _SYMBOLS | _ABBREVIATIONS
    for symbol, name in _SYMBOLS.items():
        for prefix, long in _SYMBOL_PREFIXES.items():
            if symbol not in _NOT_PREFIXED:
                found.setdefault(prefix + symbol, long + name)
    return found


UNITS = _named()  # name -> its readings
SYMBOLS = _symbols()  # symbol -> name
UNITS |= {symbol: UNITS[name] for symbol, name in SYMBOLS.items() if symbol not in UNITS}
