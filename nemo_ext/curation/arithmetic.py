r"""Find `a op b = c` statements in a solution that are false, without ever running the text as code.

    wrong_statement("She pays 3 * 4 = 12 dollars and 12 + 5 = 18.", rel_tol=1e-4)  ->  "12 + 5 = 18"

Only plain numbers, + - * / ^, brackets and simple LaTeX (\times, \cdot, \div, \frac) are read. A side of an equation
that touches anything else (a variable, a unit, a percent sign, "of") is not judged: a row is dropped for what is
certainly wrong, never for what could not be read.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

_REPLACED = (
    (re.compile(r"<<[^<>]*>>"), ""),  # GSM8K's calculator annotations repeat what the text says
    (re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[!,;]|\\?\$|&"), ""),
    (re.compile(r"\\times|\\cdot|\u00d7|\u00b7"), "*"),
    (re.compile(r"(?<=\d)\s*x\s*(?=\d)"), " * "),
    (re.compile(r"\\div|\u00f7"), "/"),
    (re.compile("\u2212"), "-"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\^\{(\d+)\}"), r"^\1"),
    (re.compile(r"(?<=[\d)])\s*\("), "*("),
)
# Not after a digit: 1\frac{1}{4} may be a mixed number or a product.
_FRACTION = re.compile(r"(?<!\d)(?<!\d )\\[dt]?frac\{([\d.+*/() -]+)\}\{([\d.+*/() -]+)\}")
_BULLET = re.compile(r"\s*[-*+]\s+")
# Not inside "14, 400" or ". 84", which are numbers torn in two.
_SENTENCE_END = re.compile(r"(?<=\S[.;:!?])\s+|(?<=\D,)\s+")
_SEGMENT = re.compile(r"[\d.+\-*/^()\s=]*=[\d.+\-*/^()\s=]*")
_NOT_AN_EQUATION = re.compile(r"[<>!=:]=|=[<>=]")
_OPERATOR = re.compile(r"[\d)]\s*[-+*/^]")
_CLOSED_AFTER = re.compile(r"$|\s|[,;:!?)\]](?:\s|$)")
_GOES_ON = re.compile(
    r"\s*(?:[A-Za-z]\b|[\\%({\[_!|]|(?:percent|cents|remainder|mod|times|of|squared)\b|and \(?\d+/\d)"
)
_AMBIGUOUS = re.compile(r"/[\s\d.]*/")  # 3 / 1/4
# What a word or sign before the first side makes of it: "half of 50 + 1", "x (3 + 4)", "20% * 3".
_OPEN_BEFORE = re.compile(r"(?:\b[A-Za-z]|[^\sA-Za-z]|\b(?:of|times|plus|minus|by|over|\d and))\s*$")
_MAX_CHARS = 200  # of one side; a longer one is not read
_MAX_EXPONENT = 64

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def wrong_statement(text: str, rel_tol: float) -> str | None:
    """The first false `left = right` in the text, or None. Compared with relative tolerance `rel_tol`."""
    for line in text.splitlines():
        for left, right in _equations(_plain(line)):
            a, b = evaluate(left), evaluate(right)
            if a is not None and b is not None and not math.isclose(a, b, rel_tol=rel_tol, abs_tol=1e-9):
                return f"{left} = {right}"
    return None


def evaluate(expression: str) -> float | None:
    """The value of a numeric expression, or None when it is not one, is too long, or has no finite real value."""
    if len(expression) > _MAX_CHARS:
        return None
    try:
        value = _value(ast.parse(expression.strip().replace("^", "**"), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, OverflowError, MemoryError, RecursionError):
        return None
    return value if value is not None and math.isfinite(value) else None


def _value(node: ast.expr) -> float | None:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if value is not None and isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Pow):
            return left**right if right == int(right) and abs(right) <= _MAX_EXPONENT else None
        if type(node.op) in _BINARY:
            return _BINARY[type(node.op)](left, right)
    return None


def _plain(line: str) -> str:
    """The line with LaTeX arithmetic written as plain arithmetic."""
    while (opened := _FRACTION.sub(r"((\1)/(\2))", line)) != line:
        line = opened
    for pattern, new in _REPLACED:
        line = pattern.sub(new, line)
    return line


def _equations(line: str) -> Iterator[tuple[str, str]]:
    """Neighbouring sides of every chain `a = b = c` in the line that can be judged."""
    bullet = _BULLET.match(line)
    for sentence in _SENTENCE_END.split(line[bullet.end() :] if bullet else line):
        for segment in _SEGMENT.finditer(sentence):
            before, after = sentence[: segment.start()], sentence[segment.end() :]
            if _NOT_AN_EQUATION.search(before[-1:] + segment.group() + after[:1]):
                continue
            texts = segment.group().split("=")
            sides: list[str | None] = [text.strip() for text in texts]
            if not _starts_whole(before, texts[0]):
                sides[0] = None
            if not _ends_whole(texts[-1], after):
                sides[-1] = None
            for left, right in pairwise(sides):
                if left and right and not _AMBIGUOUS.search(f"{left} {right}"):
                    yield _without_open_bracket(left), _without_closing_bracket(right.rstrip("."))


def _without_open_bracket(side: str) -> str:
    """ "(3 + 4 = 7)" as an aside: the bracket is not part of the sum."""
    return side[1:] if side.startswith("(") and side.count("(") == side.count(")") + 1 else side


def _without_closing_bracket(side: str) -> str:
    return side[:-1] if side.endswith(")") and side.count(")") == side.count("(") + 1 else side


def _starts_whole(before: str, side: str) -> bool:
    """Does the first side begin here, or is it the tail of something unread ("2x + 3", "half of 50")?"""
    if _OPERATOR.search(side) is None:
        return False  # "half of 6 = 3", "$7,980 : $420 = 19"
    if not before:
        return True
    touches = not side[:1].isspace()
    starts_with_operator = side.lstrip()[:1] in ("+", "-", "*", "/", "^")
    return not touches and not starts_with_operator and _OPEN_BEFORE.search(before) is None


def _ends_whole(side: str, after: str) -> bool:
    """Does the last side end here, or go on as something unread ("12 + 5x", "25%", "0.333...")?"""
    if side.rstrip().endswith(("..", "+", "-", "*", "/", "^")):
        return False
    touches = not side[-1:].isspace() and _CLOSED_AFTER.match(after) is None
    return not touches and _GOES_ON.match(after) is None
