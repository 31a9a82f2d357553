"""The code in a solution and what running it printed, in the two ways of nemo_ext/sandbox/formats.py.

blocks("...<llm-code>\\nprint(6 * 7)\\n</llm-code>\\n<llm-code-output>\\n42\\n</llm-code-output>\\nso 42")
->  [Block("code", "print(6 * 7)", ...), Block("output", "42", ...)]
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nemo_ext.sandbox.formats import AFTER_CODE, CODE_LANGUAGES, code_text

Kind = Literal["code", "output", "other"]

_MARK = re.compile(
    r"<(?P<closes>/?)llm-code(?P<output>-output)?>"
    r"|^ {0,3}(?P<fence>`{3,}+)[ \t]*+(?P<language>[^\n`]*+)$"
    rf"|{AFTER_CODE}(?P<last>`{{3,}}+)[ \t\r]*+$",
    re.MULTILINE,
)
_NO_MORE_CODE = re.compile(r"\s*+\Z|(?:[ \t\r]*\n)* {0,3}`{3,}+[ \t]*output[ \t\r]*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """`solution[start:end]` is the block with its marks; `text` what is between them, without outer white space; code
    as the sandbox runs it (formats.code_text)."""

    kind: Kind
    text: str
    start: int
    end: int


def blocks(solution: str) -> list[Block] | None:
    """Code and output blocks in order; None when their marks do not pair up, or an output does not follow its code.

    <llm-code> must have its output. A ```python block may go without one in a solution that shows none at all. Other
    fences (```json) are not code, and a longer fence holds shorter ones. Linear in the length of the solution.
    """
    if "llm-code" not in solution and "```" not in solution:
        return []
    found = _pairs(solution)
    if found is None:
        return None
    tagged = any(solution[block.start] == "<" for block in found)
    return found if _in_order([block.kind for block in found if block.kind != "other"], tagged) else None


def without_code(solution: str) -> str:
    """The solution with spaces in place of its code and of what that printed, so that every position stays: a box there is
    no answer. Linear. Where marks do not pair up, blocks that are whole by themselves are taken for such."""
    if "llm-code" not in solution and "```" not in solution:
        return solution
    found = _pairs(solution)
    kept, start = list[str](), 0
    for block in _whole_ones(solution) if found is None else found:
        if block.kind != "other":
            kept += [solution[start : block.start], " " * (block.end - block.start)]
            start = block.end
    return "".join(kept) + solution[start:]


def _whole_ones(solution: str) -> Iterator[Block]:
    """Where some marks pair up and others do not: each mark that ends what the last one before it began."""
    opened: re.Match[str] | None = None
    for mark in _MARK.finditer(solution):
        begins = not mark["closes"] if mark["closes"] is not None else bool(mark["fence"] and mark["language"].strip())
        if begins:
            opened = mark
            continue
        if opened is None or (mark["closes"] is None) != (opened["closes"] is None):
            continue
        if _closes(solution, opened, mark):
            yield _block(solution, opened, mark)
            opened = None


def _pairs(solution: str) -> list[Block] | None:
    found: list[Block] = []
    opened: re.Match[str] | None = None
    for mark in _MARK.finditer(solution):
        if opened is None:
            if mark["last"] is not None:
                continue
            if mark["closes"]:
                return None
            opened = mark
        elif (mark["closes"] is None) == (opened["closes"] is None):  # else a fence in a string of the code, say
            closes = _closes(solution, opened, mark)
            if closes is None:
                return None
            if closes:
                found.append(_block(solution, opened, mark))
                opened = None
    return found if opened is None else None


def _closes(solution: str, opened: re.Match[str], mark: re.Match[str]) -> bool | None:
    """Whether `mark` ends what `opened` began; None if it may not stand there."""
    if mark["closes"] is not None:
        return True if mark["closes"] and mark["output"] == opened["output"] else None
    if len(mark["last"] or mark["fence"]) < len(opened["fence"]):
        return False
    if mark["last"] is not None:
        return _kind(opened) == "code" and _NO_MORE_CODE.match(solution, mark.end()) is not None
    words = mark["language"].split()
    return not words if len(words) != 1 else None  # a language opens another block; several words are a text


def _block(solution: str, opened: re.Match[str], mark: re.Match[str]) -> Block:
    kind, text = _kind(opened), solution[opened.end() : mark.start()]
    return Block(kind, (code_text(text) if kind == "code" else text).strip(), opened.start(), mark.end())


def _kind(opened: re.Match[str]) -> Kind:
    if opened["closes"] is not None:
        return "output" if opened["output"] else "code"
    language = opened["language"].strip().lower()
    if language in CODE_LANGUAGES:
        return "code" if opened["fence"] == "```" else "other"
    return "output" if language == "output" else "other"


def _in_order(kinds: list[Kind], tagged: bool) -> bool:
    if not tagged and "output" not in kinds:
        return True
    waiting = False  # code whose output has not come
    for kind in kinds:
        if (kind == "output") != waiting:
            return False
        waiting = kind == "code"
    return not waiting
