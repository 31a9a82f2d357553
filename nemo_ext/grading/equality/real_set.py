r"""Sets of real numbers that conditions on one variable describe, however they are written.

    same_set(<|x - 3| \le 2>, <[1, 5]>)          ->  True
    same_set(<(0,1) \cup (1,2)>, <(0,2)>)        ->  False
    same_set(<x > a>, <(b, \infty)>)             ->  None: not about numbers alone

The ends of all intervals cut the line into points and gaps; two sets are the same when they hold the same of these.
"""

import math
from fractions import Fraction
from typing import Any, NamedTuple

from nemo_ext.grading.equality.same_value import constant, names, same_value
from nemo_ext.grading.reading.syntax import Node
from nemo_ext.grading.reading.value import NoValue, exact

CONDITIONS = frozenset(("any", "all", "union", "intersection", "without", "such_that"))
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MAX_ENDS = 48
_ZERO: Node = ("num", Fraction(0))


class NoSet(ValueError):
    """Not a set of real numbers that can be worked out."""


class _Below(NamedTuple):
    """All numbers below `end` (or up to it)."""

    end: Node
    closed: bool


Tree = tuple[Any, ...]  # ("any" | "all", trees), ("not", tree), ("below", _Below)
EVERYTHING: Tree = ("all", ())


def same_set(left: Node, right: Node) -> bool | None:
    """True or False where both are sets of real numbers, of one variable or of none named; else None."""
    try:
        (ours, first), (theirs, second) = _read(left), _read(right)
        if ours and theirs and ours != theirs:
            return False
        ends = _sorted_ends([*_ends(first), *_ends(second)])
        return all(_holds(first, at, ends) == _holds(second, at, ends) for at in range(2 * len(ends) + 1))
    except (NoSet, NoValue):
        return None


def _read(node: Node) -> tuple[str, Tree]:
    """(the variable, "" for none; the set)."""
    found: set[str] = set()
    tree = _member(node, found)
    if len(found) > 1:
        raise NoSet("of two variables")
    return (found.pop() if found else ""), tree


def _tree(node: Node, found: set[str]) -> Tree:
    kind = node[0]
    if kind in ("any", "union", "set"):
        return ("any", tuple(_member(each, found) for each in node[1]))
    if kind in ("all", "intersection"):
        return ("all", tuple(_tree(each, found) for each in node[1]))
    if kind == "without":
        return ("all", (_tree(node[1][0], found), ("not", _tree(node[1][1], found))))
    if kind == "such_that":
        domain = (node[1],) if node[1][0] == "relation" else ()
        if not domain and node[1][0] != "var":
            raise NoSet("pairs, or values of a function")
        return ("all", tuple(_tree(each, found) for each in (*domain, *node[2])))
    if kind == "group" and len(node[3]) == 2:
        return _interval(node)
    if kind == "list":
        return _listed(node, found)
    if kind == "relation":
        return _relation(node, found)
    raise NoSet(kind)


def _member(node: Node, found: set[str]) -> Tree:
    """A part of a union, or a number alone."""
    return (
        _tree(node, found) if node[0] in (*CONDITIONS, "set", "list", "group", "matrix", "relation") else _point(node)
    )


def _listed(node: Node, found: set[str]) -> Tree:
    """Conditions with commas between hold together; where they cannot, each is a case of its own."""
    if not all(each[0] == "relation" for each in node[1]):
        return ("any", tuple(_point(each) for each in node[1]))
    kind = "all" if same_set(("all", node[1]), ("set", ())) is False else "any"
    return (kind, tuple(_tree(each, found) for each in node[1]))


def _point(node: Node) -> Tree:
    return ("all", (_below(node, closed=True), ("not", _below(node, closed=False))))


def _below(node: Node, *, closed: bool) -> Tree:
    if node == ("infinity",):
        return EVERYTHING
    if node == ("neg", ("infinity",)):
        return ("any", ())
    return ("below", _Below(node, closed))


def _interval(node: Node) -> Tree:
    (low, high), opened, closed = node[3], node[1], node[2]
    return ("all", (("not", _below(low, closed=opened == "(")), _below(high, closed=closed == "]")))


def _relation(node: Node, found: set[str]) -> Tree:
    operators, operands = node[1], node[2]
    if operators == ("in",) and operands[0][0] == "var":
        found.add(operands[0][1])
        return _tree(operands[1], found)
    parts = zip(operators, operands, operands[1:], strict=False)
    return ("all", tuple(_compared(operator, a, b, found) for operator, a, b in parts))


def _compared(operator: str, left: Node, right: Node, found: set[str]) -> Tree:
    """`left` against `right`, where one is an absolute value of what is linear, or both are linear."""
    if operator not in _FLIPPED:
        equal = ("all", (_compared("<=", left, right, found), _compared(">=", left, right, found)))
        if operator not in ("=", "!="):
            raise NoSet(operator)
        return equal if operator == "=" else ("not", equal)
    if right[0] == "abs" and left[0] != "abs":
        operator, left, right = _FLIPPED[operator], right, left
    if left[0] == "abs" and not names(right):
        inner, minus = left[1], ("neg", right)
        sides = (_compared(operator, inner, right, found), _compared(_FLIPPED[operator], inner, minus, found))
        return ("all" if operator[0] == "<" else "any", sides)
    return _half_line(operator, ("sum", (left, ("neg", right))), found)


def _half_line(operator: str, difference: Node, found: set[str]) -> Tree:
    variables = names(difference)
    if len(variables) != 1:
        raise NoSet("not of one variable")
    found |= variables
    slope, rest = _linear(difference)
    if slope == 0:
        raise NoSet("it says nothing of the variable")
    end: Node = ("quotient", ("neg", rest), ("num", slope))
    if slope < 0:
        operator = _FLIPPED[operator]
    below = _below(end, closed=operator in ("<=", ">"))
    return below if operator[0] == "<" else ("not", below)


def _linear(node: Node) -> tuple[Fraction, Node]:
    """(a, b) of ax + b with a rational a."""
    if not names(node):
        return Fraction(0), node
    if node[0] == "var":
        return Fraction(1), _ZERO
    if node[0] == "neg":
        slope, rest = _linear(node[1])
        return -slope, ("neg", rest)
    if node[0] == "sum":
        parts = [_linear(part) for part in node[1]]
        return sum((slope for slope, _ in parts), Fraction(0)), ("sum", tuple(rest for _, rest in parts))
    if node[0] == "quotient" and not names(node[2]) and (bottom := exact(node[2])):
        slope, rest = _linear(node[1])
        return slope / bottom, ("quotient", rest, node[2])
    if node[0] == "product":
        return _scaled(node[1])
    raise NoSet("not linear")


def _scaled(factors: tuple[Node, ...]) -> tuple[Fraction, Node]:
    known = [exact(factor) for factor in factors if not names(factor)]
    others = [factor for factor in factors if names(factor)]
    if len(others) != 1 or None in known:
        raise NoSet("not linear")
    scale = math.prod((each for each in known if each is not None), start=Fraction(1))
    slope, rest = _linear(others[0])
    return slope * scale, ("product", (rest, ("num", scale)))


def _ends(tree: Tree) -> list[Node]:
    if tree[0] == "below":
        return [tree[1].end]
    return _ends(tree[1]) if tree[0] == "not" else [end for each in tree[1] for end in _ends(each)]


def _sorted_ends(ends: list[Node]) -> dict[Node, int]:
    """Place of every end on the line, counted from 0; the same place for two spellings of one number."""
    if len(ends) > _MAX_ENDS:
        raise NoSet("too many ends")
    sizes = {end: constant(end) for end in dict.fromkeys(ends)}
    if any(size is None or abs(size.imag) > 1e-30 for size in sizes.values()):
        raise NoSet("an end that is no real number")
    places: dict[Node, int] = {}
    last: Node | None = None
    for end in sorted(sizes, key=lambda each: sizes[each].real):
        same = last is not None and _close(sizes[last].real, sizes[end].real) and same_value(last, end)
        if same is None:
            raise NoSet("two ends that are close, and maybe the same")
        places[end] = places[last] + (not same) if last is not None else 0
        last = end
    return places


def _close(a: Any, b: Any) -> bool:
    return bool(abs(a - b) < 1e-30 * (1 + abs(a)))


def _holds(tree: Tree, at: int, ends: dict[Node, int]) -> bool:
    """Is what is at this place in the set? Odd places are the ends, even ones the gaps between them."""
    if tree[0] == "below":
        place = 2 * ends[tree[1].end] + 1
        return at < place or (at == place and tree[1].closed)
    if tree[0] == "not":
        return not _holds(tree[1], at, ends)
    return (any if tree[0] == "any" else all)(_holds(each, at, ends) for each in tree[1])
