"""Equations and inequalities: what they say of a variable."""

from nemo_ext.grading.equality.same_value import POINTS, floats, names
from nemo_ext.grading.reading.syntax import Node

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_INFINITY: Node = ("infinity",)
_CLOSE = 1e-10
_SIGNLESS = ("=", "!=")


def isolated(node: Node) -> tuple[str, Node] | None:
    r"""(name, value) of "x = 5", "x \in [0,1]" or "AB = 3"; None for another tree."""
    if node[0] != "relation" or node[1] not in (("=",), ("in",)):
        return None
    left, right = node[2]
    factors = left[1] if left[0] == "product" else (left,)
    if any(factor[0] != "var" for factor in factors) or names(left) & names(right):
        return None
    return "".join(factor[1] for factor in factors), right


def as_interval(node: Node) -> Node | None:
    r"""The interval of "x > 5", "2 <= x < 7" or "x \in (1,2)"; None for another tree."""
    if node[0] != "relation":
        return None
    operators, operands = node[1], node[2]
    if operators == ("in",) and operands[0][0] == "var":
        interval: Node = operands[1]
        return interval if interval[0] in ("group", "union", "set") else None
    if any(operator not in _FLIPPED for operator in operators):
        return None
    if len(operators) == 1:
        return _half_line(operators[0], *operands)
    if len(operators) == 2 and operators[0][0] == operators[1][0]:
        return _between(operators, operands)
    return None


def _half_line(operator: str, left: Node, right: Node) -> Node | None:
    if right[0] == "var" and not names(left):
        operator, left, right = _FLIPPED[operator], right, left
    if left[0] != "var" or names(right):
        return None
    closed = operator[1:] == "="
    if operator[0] == "<":
        return ("group", "(", "]" if closed else ")", (("neg", _INFINITY), right))
    return ("group", "[" if closed else "(", ")", (right, _INFINITY))


def _between(operators: tuple[str, ...], operands: tuple[Node, ...]) -> Node | None:
    if operators[0][0] == ">":
        operators, operands = operators[::-1], operands[::-1]
    low, variable, high = operands
    if variable[0] != "var" or names(low) or names(high):
        return None
    opened = "[" if operators[0][1:] == "=" else "("
    return ("group", opened, "]" if operators[1][1:] == "=" else ")", (low, high))


def same_equation(left: Node, right: Node) -> bool | None:
    """True where one equation is a constant times the other (or turned round); an inequality, a positive constant."""
    (ours, first), (theirs, second) = _difference(left), _difference(right)
    if ours is None or theirs is None or ((first in _SIGNLESS or second in _SIGNLESS) and first != second):
        return None
    ratios = []
    for a, b in zip(floats(ours), floats(theirs), strict=False):
        if a is None or b is None or abs(b.value) <= 1e-6 or abs(a.value) <= 1e-6:
            return None
        ratios.append(a.value / b.value)
    if len(ratios) < len(POINTS) or any(abs(ratio - ratios[0]) > _CLOSE * abs(ratios[0]) for ratio in ratios):
        return None
    return (
        True
        if first in _SIGNLESS
        else (ratios[0].real > 0 and first == second) or (False if ratios[0].real > 0 else None)
    )


def _difference(node: Node) -> tuple[Node | None, str]:
    """(a - b, operator) of "a = b", "a > b" or "a >= b"; of "a < b", b - a."""
    operators, operands = node[1], node[2]
    if len(operators) != 1 or operators[0] == "in":
        return None, "="
    left, right = operands
    if operators[0][0] == "<":
        left, right = right, left
    return ("sum", (left, ("neg", right))), operators[0].replace("<", ">")
