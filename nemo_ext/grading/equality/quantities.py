"""Amounts in several units: 2 hours 30 minutes are 150 minutes, and 5 feet 3 inches are 63 inches."""

import re
from fractions import Fraction
from itertools import pairwise

from nemo_ext.grading.reading.number import number
from nemo_ext.grading.reading.unit_table import Dimension
from nemo_ext.grading.reading.units import leading_unit
from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

_NEXT_AMOUNT = re.compile(r"(?<=[A-Za-z])\.?(?:,? ?and | )?(?=\d|\\frac)")


def compare_quantities(left: str, right: str) -> Verdict | None:
    """Decides where at least one answer is an amount in several units, and the other is one or a plain number."""
    several = [text for text in (left, right) if _NEXT_AMOUNT.search(text) and _sizes(text)]
    if not several:
        return None
    ours, theirs = _sizes(left), _sizes(right)
    if ours and theirs:
        return Verdict(EQUAL if ours & theirs else DIFFERENT, "unit")
    # 150 may be the minutes of 2 hours 30 minutes, and 2.5 the hours
    return Verdict(UNDECIDED, "unit") if number(left) or number(right) else None


def _sizes(text: str) -> set[tuple[Dimension, Fraction]]:
    """(dimension, how many of its base unit) for every reading of the units; none where it is no such amount."""
    amounts = [number(part) for part in _NEXT_AMOUNT.split(text)]
    if not all(amount and amount.unit for amount in amounts):
        return set()
    parts = [(amount.value, *leading_unit(amount.unit)) for amount in amounts if amount]
    if any(more for _, _, more in parts):
        return set()
    found = set()
    for dimension in {reading.dimension for reading in parts[0][1]}:
        readings = [[each.factor for each in units if each.dimension == dimension] for _, units, _ in parts]
        if all(readings) and all(a[0] > b[0] for a, b in pairwise(readings)):
            size = sum(
                (value * factors[0] for (value, _, _), factors in zip(parts, readings, strict=True)), Fraction(0)
            )
            found.add((dimension, size))
    return found
