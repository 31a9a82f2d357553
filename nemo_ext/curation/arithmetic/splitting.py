"""The edit that writes out what a sum skips: one operation a step.

split_arithmetic("So 1 + 2 + 3 + 4 = 10.")  ->  "So 1 + 2 + 3 + 4 = 3 + 3 + 4 = 6 + 4 = 10."
"""

import re
from decimal import Decimal
from fractions import Fraction

from nemo_ext.curation.arithmetic.statements import ends_sentence, ends_whole, starts_whole

_RUN = re.compile(r"(?<![\d.+\-*/() \t=])[\d.+\-*/() \t]*+=[\d.+\-*/() \t=]*+")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[-+*/()]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_MAX_CHARS = 200
_MAX_DIGITS, _MAX_DECIMALS = 15, 6  # of what is written in a step
_BESIDE = 80
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}

Tokens = list[str | Fraction]


def split_arithmetic(solution: str) -> str:
    """Steps are put in between the sides of `expression = number` where the expression has two operations or more.

    Left as they are: what is false, what touches a variable, unit or LaTeX, and what has a step without a short exact
    decimal (10 / 3 * 6 = 20).
    """
    if "=" not in solution:
        return solution
    return "".join(map(_line, solution.splitlines(keepends=True)))


def _line(line: str) -> str:
    if "=" not in line:
        return line
    done, written = 0, []
    for run in _RUN.finditer(line):
        start, end = run.span()
        before, after = line[max(0, start - _BESIDE) : start], line[end : end + _BESIDE]
        text = run.group()
        left, equals, right = text.partition("=")
        steps = _steps(left.strip(), right.strip().rstrip("."))
        starts = starts_whole("" if left[:1].isspace() and ends_sentence(before) else before, left)
        if steps and starts and ends_whole(right, after):
            border = right[: len(right) - len(right.lstrip())]
            written += [line[done:start], left, *(f"={border}{step}{border}" for step in steps), equals, right]
            done = end
    return "".join([*written, line[done:]])


def _steps(left: str, right: str) -> list[str]:
    """What stands between an expression and its value, one operation done at a time; [] when there is nothing to add."""
    if len(left) > _MAX_CHARS or not _NUMBER.fullmatch(right):
        return []
    tokens = _tokens(left)
    steps: list[str] = []
    while tokens is not None and len(tokens) > 1:
        tokens = _reduced(tokens)
        if tokens is not None:
            steps.append(_written(tokens))
    if tokens is None or len(tokens) != 1 or tokens[0] != Fraction(Decimal(right)):
        return []
    return steps[:-1]


def _tokens(text: str) -> Tokens | None:
    """None when more than numbers, operators and brackets is there; a sign is part of the number after it."""
    spelled = _TOKEN.findall(text)
    if "".join(spelled) != re.sub(r"\s", "", text):
        return None
    tokens: Tokens = []
    negative = False
    for word in spelled:
        starts_value = not tokens or (isinstance(tokens[-1], str) and tokens[-1] != ")")
        if word == "-" and starts_value and not negative:
            negative = True
        elif word[0].isdigit():
            tokens.append(-Fraction(Decimal(word)) if negative else Fraction(Decimal(word)))
            negative = False
        elif negative:
            return None
        else:
            tokens.append(word)
    return None if negative else tokens


def _reduced(tokens: Tokens) -> Tokens | None:
    """The tokens with the next operation done: in the innermost bracket that closes first, * and / before + and -, from
    the left.

    None when there is none, or its value is not a short exact decimal.
    """
    end = tokens.index(")") if ")" in tokens else len(tokens)
    start = max((i for i in range(end) if tokens[i] == "("), default=-1) + 1
    inner = tokens[start:end]
    operators = [i for i in range(1, len(inner), 2) if inner[i] in _RANK]
    numbers = [isinstance(value, Fraction) for value in inner[::2]]
    if len(inner) < 3 or len(inner) % 2 == 0 or len(operators) != len(inner) // 2 or not all(numbers):
        return None
    at = max(operators, key=lambda i: (_RANK[str(inner[i])], -i))
    value = _value(inner[at - 1], str(inner[at]), inner[at + 1])
    if value is None or not _is_short(value):
        return None
    inner = [*inner[: at - 1], value, *inner[at + 2 :]]
    if len(inner) == 1 and end < len(tokens):  # the bracket holds one number now
        if start == 0:
            return None
        return [*tokens[: start - 1], *inner, *tokens[end + 1 :]]
    return [*tokens[:start], *inner, *tokens[end:]]


def _value(left: str | Fraction, operator: str, right: str | Fraction) -> Fraction | None:
    assert isinstance(left, Fraction) and isinstance(right, Fraction), "operands were looked at before"
    if operator == "/":
        return left / right if right else None
    return left + right if operator == "+" else left - right if operator == "-" else left * right


def _is_short(value: Fraction) -> bool:
    return (value * 10**_MAX_DECIMALS).denominator == 1 and abs(value) < 10**_MAX_DIGITS


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def _written(tokens: Tokens) -> str:
    words: list[str] = []
    for place, token in enumerate(tokens):
        if isinstance(token, str):
            words.append(token)
            continue
        text = f"{_decimal(token).normalize():f}"
        words.append(f"({text})" if token < 0 and place and tokens[place - 1] != "(" else text)
    return " ".join(words).replace("( ", "(").replace(" )", ")")
