r"""Compare two normalised answers by their form: values, lists, tuples, intervals, sets, relations, matrices.

    compare(r"\sqrt{8}", r"2\sqrt{2}")  ->  Verdict(EQUAL, "value")
    compare("(1,2)", "(2,1)")           ->  Verdict(DIFFERENT, "form")

None where clear evidence is missing. The rules, with an example each, are a table in recipes/guides/curation.md.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

from nemo_ext.grading.equality.ratio import RATIOS, same_ratio
from nemo_ext.grading.equality.real_set import CONDITIONS, same_set
from nemo_ext.grading.equality.relation import as_interval, isolated, same_equation
from nemo_ext.grading.equality.same_value import constant, names, rational, same_value
from nemo_ext.grading.reading.joints import is_condition
from nemo_ext.grading.reading.syntax import Node, TooDeep, Unreadable, parse
from nemo_ext.grading.reading.value import NoValue, TooLarge, exact
from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

_MAX_ITEMS = 24  # of a set whose members are no plain numbers: every one is compared with every other
COLLECTIONS = ("list", "set")
_SETS = frozenset((*COLLECTIONS, *CONDITIONS, "relation"))
_FORMS = frozenset((*COLLECTIONS, *CONDITIONS, "group", "relation", "matrix", "ratio", "range"))


def compare(left: str, right: str) -> Verdict | None:
    """The verdict on two normalised answers, or None when computer algebra should be asked."""
    try:
        first, second = _read(left), _read(right)
        method = "value" if first[0] not in _FORMS and second[0] not in _FORMS else "form"
        found = same(first, second)
    except TooDeep:
        return Verdict(UNDECIDED, "too_deep")
    except Unreadable:
        return None
    except TooLarge:
        apart = (_tower(first) and _within_reach(second)) or (_tower(second) and _within_reach(first))
        return Verdict(DIFFERENT, "magnitude") if apart else Verdict(UNDECIDED, "too_large")
    except NoValue:
        return None
    return None if found is None else Verdict(EQUAL if found else DIFFERENT, method)


def compare_scaled(left: str, right: str, factor: Fraction) -> Verdict | None:
    """`compare` with `factor` times the left answer, which must be one value."""
    try:
        first, second = _read(left), _read(right)
        if first[0] in _FORMS or second[0] in _FORMS:
            return None
        found = same(("product", (("num", factor), first)), second)
    except (Unreadable, NoValue):
        return None
    return None if found is None else Verdict(EQUAL if found else DIFFERENT, "unit")


def is_between(text: str, low: Fraction, high: Fraction) -> bool:
    """Is this answer, normalised, a real value from `low` to `high`?"""
    try:
        value = constant(_read(text))
    except (Unreadable, NoValue):
        return False
    return value is not None and abs(value.imag) < 1e-30 and low <= Fraction(str(value.real)) <= high


def _read(text: str) -> Node:
    r"""The tree; 1 \pm 2 is the two values it stands for."""
    if "\\pm" not in text and "\\mp" not in text:
        return _without_degrees(parse(text))
    both = [parse(text, sign) for sign in (1, -1)]
    if both[0][0] == both[1][0] and both[0][0] in COLLECTIONS:
        return (both[0][0], both[0][1] + both[1][1])
    return ("set", tuple(both))


def _without_degrees(node: Node) -> Node:
    if node[0] == "neg" and node[1][0] == "degrees":
        return ("neg", node[1][1])
    return node[1] if node[0] == "degrees" else node


def _tower(node: Node) -> bool:
    """Is this one power that is too large to work out, so that nothing can bring it down again?"""
    if node[0] != "power" or _within_reach(node):
        return False
    base = exact(node[1])
    return base is not None and abs(base) > 1 and _grows(node[2])


def _within_reach(node: Node) -> bool:
    try:
        return same_value(node, ("const", "pi")) is not None
    except TooLarge:
        return False


def _grows(exponent: Node) -> bool:
    try:
        value = exact(exponent)
    except TooLarge:
        return _tower(exponent)
    return value is not None and value > 0


def same(left: Node, right: Node) -> bool | None:
    """True, False, or None when it is not clear."""
    if left == right:
        return True
    if _describes_set(left) or _describes_set(right):
        return _same_conditions(left, right)
    if left[0] in RATIOS or right[0] in RATIOS:
        return same_ratio(left, right)
    if "relation" in (left[0], right[0]):
        return _same_relation(left, right)
    if left[0] in COLLECTIONS or right[0] in COLLECTIONS:
        return _same_collection(left, right)
    if left[0] == right[0] == "group":
        return _same_group(left, right)
    if left[0] == right[0] == "matrix":
        return _same_matrix(left[1], right[1])
    if "group" in (left[0], right[0]):
        return _same_vector(left, right) if "matrix" in (left[0], right[0]) else False
    if "matrix" in (left[0], right[0]):
        return False
    if _infinite(left) or _infinite(right):
        return _infinite(left) == _infinite(right)
    return same_value(left, right)


def _describes_set(node: Node) -> bool:
    return node[0] in CONDITIONS or is_condition(node) or (node[0] == "list" and all(map(is_condition, node[1])))


def _same_conditions(left: Node, right: Node) -> bool | None:
    """Compare conditions as sets of numbers where they are such, else one by one."""
    if (found := same_set(left, right)) is not None:
        return found
    if not all(each[0] in _SETS or (each[0] == "group" and len(each[3]) == 2) for each in (left, right)):
        return False
    if left[0] == right[0] in ("any", "all", "list"):
        return _same_sets(left[1], right[1]) or None
    if {left[0], right[0]} <= {"union", "group"}:
        return _same_union(left, right)
    if left[0] == right[0] == "relation":
        return _same_relations(left, right)
    plain, other = (left, right) if left[0] == "relation" else (right, left)
    if plain[0] == "relation" and (interval := as_interval(plain)) is not None and other[0] == "group":
        return same(interval, other)
    return None


def _infinite(node: Node) -> int:
    """The sign of an infinity; 0 for anything else."""
    if node[0] == "neg":
        return -_infinite(node[1])
    return int(node[0] == "infinity")


def _every(outcomes: Iterable[bool | None]) -> bool | None:
    """True when all are, False when one is. All are asked for, so that no order of the answers hides a bomb."""
    found = list(outcomes)
    return False if False in found else None if None in found else True


def _same_group(left: Node, right: Node) -> bool | None:
    """Tuples and intervals are ordered; of two values [ and ( make another interval, save at an infinity."""
    ours, theirs = left[3], right[3]
    if len(ours) != len(theirs):
        return False
    if len(ours) == 2:
        if _brackets(left) != _brackets(right):
            return False
    elif any(node[1:3] not in (("(", ")"), ("[", "]")) for node in (left, right)):
        return None
    return _every(same(a, b) for a, b in zip(ours, theirs, strict=True))


def _brackets(interval: Node) -> tuple[str, str]:
    low, high = interval[3]
    return "(" if _infinite(low) else interval[1], ")" if _infinite(high) else interval[2]


def _same_union(left: Node, right: Node) -> bool | None:
    """Pieces in any order. Only where both sides are intervals apart from each other do other pieces mean another set."""
    pieces = [node[1] if node[0] == "union" else (node,) for node in (left, right)]
    if any(piece[0] in ("set", "union") for piece in (*pieces[0], *pieces[1])):
        return _same_sets(*pieces) or None
    if not all(piece[0] == "group" and len(piece[3]) == 2 for piece in (*pieces[0], *pieces[1])):
        return False
    found = _same_sets(*pieces)
    return found if found or all(_apart(each) for each in pieces) else None


def _apart(intervals: Sequence[Node]) -> bool:
    """Whether the intervals rise, with a gap between neighbours."""
    ends = [_real(end) for interval in intervals for end in interval[3]]
    known = [end for end in ends if end is not None]
    return len(known) == len(ends) and all(a < b for a, b in pairwise(known))


def _real(node: Node) -> float | None:
    """Roughly where on the number line this is; None for what is not a number."""
    if infinite := _infinite(node):
        return infinite * math.inf
    value = None if names(node) else constant(node)
    return None if value is None or abs(value.imag) > 1e-30 else float(value.real)


def _same_vector(left: Node, right: Node) -> bool | None:
    """A tuple may be meant by a matrix of one row or column; whether it is, computer algebra decides."""
    matrix, group = (left, right) if left[0] == "matrix" else (right, left)
    rows = matrix[1]
    entries = rows[0] if len(rows) == 1 else [row[0] for row in rows if len(row) == 1]
    if len(entries) != len(group[3]):
        return False
    found = _every(same(a, b) for a, b in zip(entries, group[3], strict=True))
    return None if found else found


def _same_matrix(left: Sequence[Sequence[Node]], right: Sequence[Sequence[Node]]) -> bool | None:
    if [len(row) for row in left] != [len(row) for row in right]:
        return False
    pairs = [pair for rows in zip(left, right, strict=True) for pair in zip(*rows, strict=True)]
    return _every(same(a, b) for a, b in pairs)


def _same_collection(left: Node, right: Node) -> bool | None:
    """Sets and lists have no order. A list may also be a tuple without its brackets, then in the tuple's order."""
    if right[0] == "group":
        left, right = right, left
    if any(("dots",) in node[1] for node in (left, right) if node[0] in COLLECTIONS):
        return _same_so_far(left, right)
    if left[0] == "group":
        if right[0] == "set":
            return False if len(right[1]) > 1 else None
        if len(left[3]) != len(right[1]):
            return False
        return _every(same(a, b) for a, b in zip(left[3], right[1], strict=True))
    return _same_sets(*(node[1] if node[0] in COLLECTIONS else (node,) for node in (left, right)))


def _same_so_far(left: Node, right: Node) -> bool | None:
    """Two sequences with dots are the same where all that is written is; what the dots hide is not known."""
    ours, theirs = (node[1] if node[0] in COLLECTIONS else (node,) for node in (left, right))
    is_same = len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    return True if is_same else None


def _same_sets(left: Sequence[Node], right: Sequence[Node]) -> bool | None:
    left, right = _plain(left), _plain(right)
    rationals = [[rational(_without_degrees(item)) for item in items] for items in (left, right)]
    if all(value is not None for values in rationals for value in values):
        return set(rationals[0]) == set(rationals[1])
    if max(len(left), len(right)) > _MAX_ITEMS:
        return None
    covered = (_any(same(a, b) for b in theirs) for ours, theirs in ((left, right), (right, left)) for a in ours)
    return _every(covered)


def _plain(items: Sequence[Node]) -> Sequence[Node]:
    """x=1, x=2 are the values 1 and 2 of one variable."""
    named = [isolated(item) for item in items]
    if all(named) and len({each[0] for each in named if each}) == 1:
        return [each[1] for each in named if each]
    first = named[0] if named else None
    if first and not any(named[1:]) and all(item[0] != "relation" for item in items[1:]):
        return [first[1], *items[1:]]
    return items


def _any(outcomes: Iterable[bool | None]) -> bool | None:
    found = list(outcomes)
    return True if True in found else None if None in found else False


def _same_relation(left: Node, right: Node) -> bool | None:
    if left[0] == right[0] == "relation":
        return _same_relations(left, right)
    if right[0] == "relation":
        left, right = right, left
    if (named := isolated(left)) is not None:
        return same(named[1], right)
    if (interval := as_interval(left)) is not None:
        return same(interval, right)
    if right[0] in COLLECTIONS:
        return _same_sets((left,), right[1])
    values = left[2]
    if set(left[1]) != {"="}:
        return None
    found = same(values[-1], right)
    return found if found is False or not any(names(value) for value in values) else None


def _same_relations(left: Node, right: Node) -> bool | None:
    ours, theirs = isolated(left), isolated(right)
    if ours and theirs:
        if ours[0] == theirs[0]:
            return same(ours[1], theirs[1])
        if not names(ours[1]) and not names(theirs[1]):
            return False
    first, second = as_interval(left), as_interval(right)
    if first is not None and second is not None:
        return same(first, second)
    return same_equation(left, right)
