r"""Ratios: 2:3:5 is 4:6:10, and 2:3 is \frac{2}{3}."""

from fractions import Fraction
from itertools import combinations

from nemo_ext.grading.equality.same_value import same_value
from nemo_ext.grading.reading.joints import Node

RATIOS = ("ratio", "range")


def same_ratio(left: Node, right: Node) -> bool | None:
    """None where "2 to 3" may be a range, which no other range has the value of, and where a number is not clear."""
    if left[0] in RATIOS and right[0] in RATIOS:
        if len(left[1]) != len(right[1]):
            return False
        if left[0] == right[0] == "range":
            same = [same_value(a, b) for a, b in zip(left[1], right[1], strict=True)]
            return True if all(same) else (False if _proportional(left[1], right[1]) is False else None)
        return _proportional(left[1], right[1])
    ratio, other = (left, right) if left[0] in RATIOS else (right, left)
    if len(ratio[1]) != 2 or other[0] in ("list", "set", "group", "matrix", "relation"):
        return None
    found = same_value(("quotient", *ratio[1]), other)
    return found if found or ratio[0] == "ratio" else None


def _proportional(left: tuple[Node, ...], right: tuple[Node, ...]) -> bool | None:
    """a:b:c and d:e:f, without dividing: ae = bd and so on. Of nothing but zeros nothing can be said."""
    pairs = list(zip(left, right, strict=True))
    found = [same_value(_product(a, e), _product(b, d)) for (a, d), (b, e) in combinations(pairs, 2)]
    if False in found:
        return False
    zeros = [all(same_value(term, ("num", Fraction(0))) for term in terms) for terms in (left, right)]
    return None if None in found or any(zeros) else True


def _product(left: Node, right: Node) -> Node:
    return ("product", (left, right))
