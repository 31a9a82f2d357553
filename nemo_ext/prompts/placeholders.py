r"""Tell the placeholders of a prompt's text from its other braces: prompts are full of LaTeX.

{problem}                     the row's value (lower-case letters and _)
\boxed{answer}, x_{n}, a^{n}  LaTeX: the argument of a command, of _ and of ^ stays text, \frac{a}{b} too
\boxed{{expected_answer}}     a value inside such an argument
{{answer}}                    the text {answer}
{N}, {1, 2}, \{a\}            text: not a key's spelling
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

KEY = re.compile(r"\{([a-z_]+)\}")
# {Problem}, { problem }, {problem:s}, {problem.text}, {problem1}: text, but hardly meant as such
DOUBTFUL = re.compile(r"\{\s*[A-Za-z_][\w.-]+\s*(?::\w*)?\}")
LITERAL = re.compile(r"\{(\{\s*[A-Za-z_][\w.-]*\s*(?::\w*)?\})\}")
COMMAND = re.compile(r"\\(?!n\{)[A-Za-z]+\*?(?:\[[^\]\n{}]*\])?(?=\{)|[_^](?=\{)")
ESCAPED = re.compile(r"\\.", re.DOTALL)
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


@dataclass(frozen=True)
class Key:
    """Where the row's value of `name` goes."""

    name: str


class Doubtful(str):
    """Text that looks like a misspelt placeholder."""


@lru_cache(maxsize=1024)
def pieces(text: str) -> tuple[str | Key, ...]:
    """`text` as literal pieces and keys, in order."""
    return tuple(_merged(_scan(text)))


def keys(text: str) -> frozenset[str]:
    return frozenset(piece.name for piece in pieces(text) if isinstance(piece, Key))


def misspelt(text: str) -> list[str]:
    """Braces that look like a placeholder and are not one."""
    return [piece for piece in _scan(text) if isinstance(piece, Doubtful)]


def unbalanced(text: str) -> str | None:
    r"""The line of a brace without a partner; None when all have one. \{ and \} do not count."""
    open_at: list[int] = []
    for match in BRACE.finditer(text):
        if match[0] == "{":
            open_at.append(match.start())
        elif match[0] == "}" and not open_at:
            return _line(text, match.start())
        elif match[0] == "}":
            open_at.pop()
    return _line(text, open_at[-1]) if open_at else None


def _line(text: str, at: int) -> str:
    return text[text.rfind("\n", 0, at) + 1 :].split("\n", 1)[0]


def _merged(found: Iterator[str | Key]) -> Iterator[str | Key]:
    literal = ""
    for piece in found:
        if isinstance(piece, str):
            literal += piece
            continue
        if literal:
            yield literal
        literal = ""
        yield piece
    if literal:
        yield literal


def _scan(text: str) -> Iterator[str | Key]:
    at = 0
    while at < len(text):
        if match := COMMAND.match(text, at):
            yield match[0]
            at = match.end()
            while (end := _closing(text, at)) is not None:  # every argument: \frac has two
                yield "{"
                yield from _scan(text[at + 1 : end])
                yield "}"
                at = end + 1
        elif match := LITERAL.match(text, at):
            yield match[1]
        elif match := KEY.match(text, at):
            yield Key(match[1])
        elif match := DOUBTFUL.match(text, at):
            yield Doubtful(match[0])
        else:
            match = ESCAPED.match(text, at)
            yield match[0] if match else text[at]
        at = max(at, match.end() if match else at + 1)


def _closing(text: str, start: int) -> int | None:
    """The index of the brace that closes the one at `start`; None when there is none, or it stays open."""
    if not text.startswith("{", start):
        return None
    depth = 0
    for match in BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None
