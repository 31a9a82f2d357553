r"""Units after a value: what they are together, and where they begin.

    unit("miles per hour")        ->  (Unit((("length", 1), ("time", -1)), Fraction(1397, 3125)),)
    split_unit(r"\pi cm^2")       ->  (r"\pi", "cm^2")
    spelled_out("m/s^2")          ->  "meter/second^2"

A unit that only one of two answers has is ignored ("18 dollars" answers "18"). Two known units of one dimension are
converted ("60 minutes" is "1 hour"); of two dimensions they differ. Other words ("18 students") never decide.
"""

import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from itertools import product

from nemo_ext.grading.reading.unit_table import BARE, SYMBOLS, UNITS, Unit

_UNNAMED = "things"  # the dimension of what a rate counts: cookies per hour
_SHORT_RATES = {"mph": "mile/hour", "kmh": "kilometer/hour", "kph": "kilometer/hour", "rpm": "things/minute"}
_POWERS = (
    (re.compile(r"\b(?:square|sq\.?) ([a-z]+)"), r"\1^2"),
    (re.compile(r"\b(?:cubic|cu\.?) ([a-z]+)"), r"\1^3"),
    (re.compile(r"\b([a-z]+) squared\b"), r"\1^2"),
    (re.compile(r"\b([a-z]+) cubed\b"), r"\1^3"),
)
_PART = re.compile(r"(fl(?:uid)? [A-Za-z]+|[A-Za-z]+)\.?(?:\^\{?(-?\d)\}?)?")
_TIMES = re.compile(r" ?(?:\\cdot|\*|-) ?| ")
_OVER = re.compile(r" ?/ ?| per ")
_TAIL = re.compile(r"(?:[A-Za-z./ ]|\^\{?-?\d\}?|\\cdot(?![A-Za-z])){1,80}+$")
_DEGREES = re.compile(r"\^\\circ ?(?:([CF])(?:elsius|ahrenheit)?)?$")
_ONE_VALUE = re.compile(
    r"(?:\\(?:frac|sqrt|pi|cdot|times|alpha|beta|gamma|theta|phi)(?![A-Za-z])|[-+*/^(){}\d. ]|[A-Za-z](?![A-Za-z]))+"
)
_WORD_START = re.compile(r"(?<![A-Za-z\\_^])[A-Za-z]{2,}")
_NO_DIMENSION = re.compile(r"(?:(?:square|sq\.?|cubic|cu\.?) ?)?units?(?:\^\d)?")
_SYMBOL = re.compile(r"[A-Za-z]+")
_MAX_WORDS = 8


@lru_cache(maxsize=4096)
def unit(text: str) -> tuple[Unit, ...]:
    """What these words may be: the readings of a unit, or none when they are no unit of the table."""
    text = text.strip(" .")
    text = _SHORT_RATES.get(text.casefold(), text)
    text = f"{_UNNAMED} {text}" if text.startswith("per ") else text
    for pattern, power in _POWERS:
        text = pattern.sub(power, text)
    top, *bottoms = _OVER.split(re.sub(r"(?<=[a-z]) an? (?=[a-z])", " per ", text))
    if len(bottoms) > 1:
        return ()
    above = _product(top) or ((Unit(((_UNNAMED, 1),), Fraction(1)),) if bottoms and top.strip().isalpha() else ())
    if not bottoms:
        return above
    return tuple(_times(a, b, -1) for a, b in product(above, _product(bottoms[0])))


@lru_cache(maxsize=4096)
def leading_unit(text: str) -> tuple[tuple[Unit, ...], str]:
    """The readings of the unit these words begin with, and the words behind it: "miles north" are miles."""
    words = text.split(" ")
    for count in range(min(len(words), _MAX_WORDS), 0, -1):
        if found := unit(" ".join(words[:count])):
            return found, " ".join(words[count:])
    return (), text


def _product(text: str) -> tuple[Unit, ...]:
    found: tuple[Unit, ...] = (Unit((), Fraction(1)),)
    at = 0
    text = text.strip()
    while at < len(text):
        part = _PART.match(text, at)
        readings = _named(part[1]) if part else []
        if part is None or not readings:
            return ()
        found = tuple(_times(a, b, int(part[2] or 1)) for a, b in product(found, readings))
        at = part.end()
        if joint := _TIMES.match(text, at):
            at = joint.end()
        elif at < len(text):
            return ()
    return found if text else ()


def _named(name: str) -> list[Unit]:
    return UNITS.get(name) or UNITS.get(name.casefold()) or []


def _times(left: Unit, right: Unit, power: int) -> Unit:
    together = Counter(dict(left.dimension))
    for base, each in right.dimension:
        together[base] += each * power
    dimension = tuple(sorted((base, each) for base, each in together.items() if each))
    return Unit(dimension, left.factor * right.factor**power)


def factors(ours: tuple[Unit, ...], theirs: tuple[Unit, ...]) -> list[Fraction]:
    """How many of theirs one of ours is, for every pair of readings of one dimension; none: two kinds of thing."""
    return [a.factor / b.factor for a, b in product(ours, theirs) if a.dimension == b.dimension]


@lru_cache(maxsize=16384)
def split_unit(text: str) -> tuple[str, str]:
    r"""(value, unit) of "5\sqrt{2} cm" or "\frac{\pi}{3}^\circ"; the unit is "" where the answer ends in none we know."""
    if "\\circ" in text and (degrees := _DEGREES.search(text)):
        return _of_degrees(text, degrees)
    tail = _TAIL.search(text)
    if tail is None:
        return text, ""
    for start in _WORD_START.finditer(text, tail.start()):
        value, words = text[: start.start()].strip(), text[start.start() :].strip(" .")
        if not value or value[-1] in "+-*/=<>,;:(":
            continue
        if _NO_DIMENSION.fullmatch(words):
            return value, ""
        if unit(words) and (len(start[0]) > 2 or start[0] in BARE or words != start[0]):
            return value, words
    return text, ""


def _of_degrees(text: str, sign: re.Match[str]) -> tuple[str, str]:
    r"""Only of one value: in \cos 60^\circ and 30^\circ,60^\circ the sign is not that of the whole answer."""
    value = text[: sign.start()]
    if not _ONE_VALUE.fullmatch(value):
        return text, ""
    return value, {"C": "celsius", "F": "fahrenheit", None: "degrees"}[sign[1]]


@lru_cache(maxsize=4096)
def spelled_out(text: str) -> str:
    r"""The unit symbols in the text of a \text or \mathrm in words; another text as it is."""
    words = re.sub(r"\\[,;: ]|~|\s+", " ", text).strip(" ")
    named = _SYMBOL.sub(lambda symbol: SYMBOLS.get(symbol[0], symbol[0]), words)
    return named if named != words and unit(named) else text
