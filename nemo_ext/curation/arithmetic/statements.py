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
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator annotations repeat what the text says
_DRESSING = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[!,;]|\\?\$|&")
_TIMES = re.compile(r"\\times|\\cdot")
_LETTER_TIMES = re.compile(r"(\d)\s*x\s*(?=\d)")
_BEYOND_ASCII = str.maketrans(
    {"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u00a0": " ", "\u202f": " "}
)
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
_BRACED_POWER = re.compile(r"\^\{(\d+)\}")
_TIMES_BRACKET = re.compile(r"([\d)])\s*\(")
# Not after a digit: 1\frac{1}{4} may be a mixed number or a product.
_FRACTION = re.compile(r"(?<!\d)(?<!\d )\\[dt]?frac\{([\d.+*/() -]+)\}\{([\d.+*/() -]+)\}")
_BULLET = re.compile(r"\s*[-*+]\s+")
_NUMERIC = "0123456789.+-*/^()= \t\n\r\f\v"
_NUMERIC_RUN = re.compile(r"[\d.+\-*/^()=\s]*")
_SENTENCE_END = re.compile(r"(?<=\S\.)\s+")  # not inside ". 84", a number torn in two
_OPERATOR = re.compile(r"[\d)]\s*[-+*/^]")
_CLOSED_AFTER = re.compile(r"$|\s|[,;:!?)\]](?:\s|$)")
_GOES_ON = re.compile(
    r"\s*(?:[A-Za-z]\b|[\\%({\[_!|]|(?:percent|cents|remainder|mod|times|of|squared)\b|and \(?\d+/\d)"
)
_AMBIGUOUS = re.compile(r"/[\s\d.]*/")  # 3 / 1/4
# What a word or sign before the first side makes of it: "half of 50 + 1", "x (3 + 4)", "20% * 3".
_OPEN_BEFORE = re.compile(r"(?:\b[A-Za-z]|[^\sA-Za-z]|\b(?:of|times|plus|minus|by|over|\d and))\s*$")
_MAX_CHARS = 200  # of one side; a longer one is not read
_MAX_NESTED_FRACTIONS = 8
_BESIDE = 80  # characters next to a segment that say what it is part of; the longest of them is "remainder"
_MAX_EXPONENT = 64

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def wrong_statement(text: str, rel_tol: float) -> str | None:
    """The first false `left = right` in the text, or None. Compared with relative tolerance `rel_tol`."""
    for line in text.splitlines() if "=" in text else ():
        if "=" in line:
            for statement in _doubtful(_plain(line), rel_tol):
                if wrong := statement.wrong(rel_tol):
                    return wrong
    return None


def evaluate(expression: str) -> float | None:
    """The value of a numeric expression, or None when it is not one, is too long, or has no finite real value."""
    return _evaluated(expression) if len(expression) <= _MAX_CHARS else None


@lru_cache(maxsize=1 << 16)
def _evaluated(expression: str) -> float | None:
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
    if "\\" in line:
        line = _without_fractions(line)
    if not line.isascii():
        line = line.translate(_BEYOND_ASCII)
    if "<" in line:
        line = _ANNOTATION.sub("", line)
    if "\\" in line or "$" in line or "&" in line:
        line = _TIMES.sub("*", _DRESSING.sub("", line)).replace("\\div", "/")
    if "x" in line:
        line = _LETTER_TIMES.sub(r"\1 * ", line)
    if "," in line:
        line = _THOUSANDS.sub("", line)
    if "^" in line:
        line = _BRACED_POWER.sub(r"^\1", line)
    if "(" in line:
        line = _TIMES_BRACKET.sub(r"\1*(", line)
    return line


def _without_fractions(line: str) -> str:
    for _ in range(_MAX_NESTED_FRACTIONS):
        line, count = _FRACTION.subn(r"((\1)/(\2))", line)
        if not count:
            break
    return line


def _doubtful(line: str, rel_tol: float) -> Iterator["_Statement"]:
    """Every run of numbers, operators and equality signs within one sentence that may hold a false statement."""
    bullet = _BULLET.match(line)
    if bullet:
        line = line[bullet.end() :]
    end = 0
    while (sign := line.find("=", end)) >= 0:
        start = end + len(line[end:sign].rstrip(_NUMERIC))
        run = _NUMERIC_RUN.match(line, sign)
        assert run is not None, "it matches nothing, too"
        end = run.end()
        text = line[start:end]
        if ". " in text or ".\t" in text:
            yield from _by_sentence(line, start, end)
        elif _differs(text, rel_tol):
            yield _statement(line, start, end)


def _differs(text: str, rel_tol: float) -> bool:
    """Has a chain neighbouring sides of different value? Most have not, and need no closer look."""
    left, *others = text.split("=")
    for right in others:
        if len(left) <= _MAX_CHARS and len(right) <= _MAX_CHARS:
            a, b = _left_value(left), _right_value(right)
            if a != b and a is not None and b is not None and not _close(a, b, rel_tol):
                return True
        elif len(left.strip()) <= _MAX_CHARS and len(right.strip()) <= _MAX_CHARS:
            return True  # to be looked at closely
        left = right
    return False


@lru_cache(maxsize=1 << 16)
def _left_value(side: str) -> float | None:
    return evaluate(_without_open_bracket(side.strip()))


@lru_cache(maxsize=1 << 16)
def _right_value(side: str) -> float | None:
    return evaluate(_without_closing_bracket(side.strip().rstrip(".")))


def _close(a: float, b: float, rel_tol: float) -> bool:
    return math.isclose(a, b, rel_tol=rel_tol, abs_tol=1e-9)


class _Statement(NamedTuple):
    """A chain `a = b = c`, and what stands next to it."""

    text: str
    before: str
    after: str

    def wrong(self, rel_tol: float) -> str | None:
        """The first two neighbouring sides that differ, if they can be judged."""
        sides = self.text.split("=")
        for place, (left, right) in enumerate(pairwise(sides)):
            first = _without_open_bracket(left.strip())
            second = _without_closing_bracket(right.strip().rstrip("."))
            a, b = evaluate(first), evaluate(second)
            if a is None or b is None or _close(a, b, rel_tol):
                continue
            starts = place > 0 or starts_whole(self.before, left)
            ends = place < len(sides) - 2 or ends_whole(right, self.after)
            if starts and ends and not self._is_comparison() and not _AMBIGUOUS.search(f"{left} {right}"):
                return f"{first} = {second}"
        return None

    def _is_comparison(self) -> bool:
        """One of the signs is not "=" but "<=", "!=", ":=", "==" or "=>"."""
        opens = self.text.startswith("=") and self.before.endswith(("<", ">", "!", ":"))
        return opens or "==" in self.text or (self.text.endswith("=") and self.after.startswith(("<", ">")))


def _statement(line: str, start: int, end: int) -> _Statement:
    before = line[max(0, start - _BESIDE) : start]
    begins_sentence = ends_sentence(before) and line[start].isspace()
    return _Statement(line[start:end], "" if begins_sentence else before, line[end : end + _BESIDE])


def _by_sentence(line: str, start: int, end: int) -> Iterator[_Statement]:
    edges = [cut.span() for cut in _SENTENCE_END.finditer(line, start, end)]
    whole = _statement(line, start, end)
    starts, ends = [start, *(edge[1] for edge in edges)], [*(edge[0] for edge in edges), end]
    for first, last in zip(starts, ends, strict=True):
        if "=" in line[first:last]:
            before, after = whole.before if first == start else "", whole.after if last == end else ""
            yield _Statement(line[first:last], before, after)


def ends_sentence(before: str) -> bool:
    """What stands there ends in punctuation, which a comma in "14, 400" is not."""
    if before.endswith(",") and len(before) > 1:
        return not before[-2:-1].isdigit()
    return before.endswith((";", ":", "!", "?")) and not before[-2:-1].isspace() and len(before) > 1


def _without_open_bracket(side: str) -> str:
    """ "(3 + 4 = 7)" as an aside: the bracket is not part of the sum."""
    return side[1:] if side.startswith("(") and side.count("(") == side.count(")") + 1 else side


def _without_closing_bracket(side: str) -> str:
    return side[:-1] if side.endswith(")") and side.count(")") == side.count("(") + 1 else side


def starts_whole(before: str, side: str) -> bool:
    """Does the first side begin here, or is it the tail of something unread ("2x + 3", "half of 50")?"""
    if _OPERATOR.search(side) is None:
        return False  # "half of 6 = 3", "$7,980 : $420 = 19"
    if not before:
        return True
    touches = not side[:1].isspace()
    starts_with_operator = side.lstrip()[:1] in ("+", "-", "*", "/", "^")
    return not touches and not starts_with_operator and _OPEN_BEFORE.search(before) is None


def ends_whole(side: str, after: str) -> bool:
    """Does the last side end here, or go on as something unread ("12 + 5x", "25%", "0.333...")?"""
    if side.rstrip().endswith(("..", "+", "-", "*", "/", "^")):
        return False
    touches = not side[-1:].isspace() and _CLOSED_AFTER.match(after) is None
    return not touches and _GOES_ON.match(after) is None
