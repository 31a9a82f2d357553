"""Compare the values of two trees of syntax.py.

Rational values are compared exactly. Others are worked out at fixed pseudo-random values of their variables: in floats,
which shows most pairs to be different, and where those agree with 50 digits. Only clear evidence counts: values that are
close but not the same, poles, branch cuts and very large or small numbers are left to computer algebra (None).
"""

import zlib
from fractions import Fraction
from functools import lru_cache
from typing import Any

from nemo_ext.grading.reading.syntax import Node
from nemo_ext.grading.reading.value import NoValue, Numbers, TooLarge, Value, exact

# The sign of every variable and what a bare "log" means, point by point. Two points are positive throughout.
POINTS = ((1, 1, 10), (1, 1, 3), (-1, -1, 10), (1, -1, 3))
_Pair = tuple[Value | None, Value | None]
_CLEARLY = 1000  # times the error bound


def same_value(left: Node, right: Node) -> bool | None:
    """True, False, or None when the evidence is not clear.

    Raises:
        TooLarge: a side is beyond any number that could be worked out.
    """
    try:
        first, second = rational(left), rational(right)
        if first is not None and second is not None:
            return first == second
        left, right = _in_one_case(left, right)
        values = _where_real(left, right, list(zip(floats(left), floats(right), strict=False)))
        evidence = [_compare(a, b) for a, b in values]
        known = [each for each in evidence if each is not None]
        if known and not any(known) and len(known) >= min(2, len(evidence)):
            return False
        return _confirm(left, right) if all(known) else None
    except TooLarge:
        raise
    except NoValue:
        return None


def _where_real(left: Node, right: Node, values: list[_Pair]) -> list[_Pair]:
    """Without the points where neither side is real, if there are others: \\sqrt{1/n} is an answer for n > 0."""
    if not names(left) or _has_i(left) or _has_i(right):
        return values
    kept = [
        pair for pair in values if not all(value is not None and abs(value.value.imag) > value.error for value in pair)
    ]
    return kept if len(kept) >= 2 else values


def _has_i(node: Node) -> bool:
    return node == ("const", "i") or any(_has_i(part) for part in parts(node))


def rational(node: Node) -> Fraction | None:
    """The exact value of a tree, or None where none is seen."""
    try:
        return exact(node)
    except NoValue:
        return None


def _confirm(left: Node, right: Node) -> bool | None:
    """Compare with 50 digits, at a point where every variable is positive."""
    numbers = [Numbers("mp", _values(names(node), 0)) for node in (left, right)]
    found = [_attempt(number, node) for number, node in zip(numbers, (left, right), strict=True)]
    if any(isinstance(each, TooLarge) for each in found):
        raise TooLarge("power")
    verdict = _compare(*(None if isinstance(each, NoValue) else each for each in found))
    if verdict and any(number.extreme for number in numbers):
        return None  # 10^50 and the root of 10^100 + 1 agree to 50 digits
    return verdict


def _attempt(numbers: Numbers, node: Node) -> Value | NoValue:
    try:
        return numbers.evaluate(node)
    except NoValue as error:
        return error


def constant(node: Node) -> Any:
    """The value of a tree without variables, to 50 digits; None of another.

    Raises:
        NoValue, TooLarge: it has none.
    """
    return None if names(node) or _has_log(node) else Numbers("mp", {}).evaluate(node).value


def _compare(left: Value | None, right: Value | None) -> bool | None:
    if left is None or right is None:
        return None
    gap, error = abs(left.value - right.value), left.error + right.error
    if gap > _CLEARLY * error:
        return False
    # both zero within their errors, or errors far below what is compared
    return True if error < 1e-9 * max(abs(left.value), abs(right.value), 1e-3) else None


@lru_cache(maxsize=16384)
def floats(node: Node) -> tuple[Value | None, ...]:
    """The value at every point; one point where there is nothing to vary."""
    variables = names(node)
    found: list[Value | None] = []
    for index in range(len(POINTS)):
        numbers = Numbers("float", _values(variables, index), POINTS[index][2])
        try:
            found.append(numbers.evaluate(node))
        except (NoValue, OverflowError, ZeroDivisionError, ValueError):
            found.append(None)
        if not variables and not _has_log(node):
            break
    return tuple(found * (len(POINTS) // len(found)))


def _values(variables: frozenset[str], point: int) -> dict[str, Fraction]:
    """Rational values between 0.3 and 2.3 in size that depend on nothing but the name and the point."""
    values = {}
    for name in variables:
        draw = zlib.crc32(f"{name}/{point}".encode())
        sign = POINTS[point][draw & 1]
        values[name] = sign * Fraction(300_007 + (draw >> 1) % 2_000_003, 1_000_003)
    return values


@lru_cache(maxsize=16384)
def names(node: Node) -> frozenset[str]:
    """The variables of a tree."""
    if node[0] == "var":
        return frozenset((node[1],))
    return frozenset().union(*(names(part) for part in parts(node)))


def _has_log(node: Node) -> bool:
    return node[:2] == ("function", "log") or any(_has_log(part) for part in parts(node))


def parts(node: Node) -> list[Node]:
    """The trees directly below this one."""
    found: list[Node] = []
    for each in node[1:]:
        if isinstance(each, tuple) and each:
            found += [each] if isinstance(each[0], str) else [item for item in each if isinstance(item, tuple)]
    return found


def _in_one_case(left: Node, right: Node) -> tuple[Node, Node]:
    """3R^2 answers 3r^2, unless a side uses both letters."""
    ours, theirs = names(left), names(right)
    lower = {name.lower() for name in ours}
    if ours == theirs or lower != {name.lower() for name in theirs} or len(lower) != len(ours) != len(theirs):
        return left, right
    return _lowered(left), _lowered(right)


def _lowered(node: Any) -> Any:
    if not isinstance(node, tuple):
        return node
    if node and node[0] == "var":
        return ("var", node[1].lower())
    return tuple(_lowered(part) for part in node)
