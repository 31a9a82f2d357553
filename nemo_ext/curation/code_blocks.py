"""The code in a solution and what running it printed, in the two ways of nemo_ext/sandbox/formats.py.

blocks("...<llm-code>\\nprint(6 * 7)\\n</llm-code>\\n<llm-code-output>\\n42\\n</llm-code-output>\\nso 42")
->  [Block("code", "print(6 * 7)", ...), Block("output", "42", ...)]
"""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["code", "output", "other"]

_MARK = re.compile(
    r"<(?P<closes>/?)llm-code(?P<output>-output)?>|^[ \t]*+```[ \t]*+(?P<language>[^\n`]*+)$", re.MULTILINE
)
_CODE_FENCES = frozenset(("python", "py"))


@dataclass(frozen=True)
class Block:
    """`solution[start:end]` is the block with its marks; `text` what is between them, without outer white space."""

    kind: Kind
    text: str
    start: int
    end: int


def blocks(solution: str) -> list[Block] | None:
    """Code and output blocks in order; None when their marks do not pair up, or an output does not follow its code.

    <llm-code> must have its output. A ```python block may go without one in a solution that shows none at all. Other
    fences (```json) are not code. Linear in the length of the solution.
    """
    if "llm-code" not in solution and "```" not in solution:
        return []
    found = _pairs(solution)
    if found is None:
        return None
    tagged = any(solution[block.start] == "<" for block in found)
    return found if _in_order([block.kind for block in found if block.kind != "other"], tagged) else None


def _pairs(solution: str) -> list[Block] | None:
    found: list[Block] = []
    opened: tuple[re.Match[str], bool, Kind] | None = None
    for mark in _MARK.finditer(solution):
        tag, language = mark["language"] is None, (mark["language"] or "").strip().lower()
        if opened is not None:
            start, opened_by_tag, kind = opened
            if tag != opened_by_tag:
                continue  # a fence in a string of the code, say
            closes = bool(mark["closes"]) and (mark["output"] == start["output"]) if tag else not language
            if not closes:
                return None
            found.append(Block(kind, solution[start.end() : mark.start()].strip(), start.start(), mark.end()))
            opened = None
        elif tag:
            if mark["closes"]:
                return None
            opened = (mark, True, "output" if mark["output"] else "code")
        else:
            opened = (mark, False, _fence_kind(language))
    return found if opened is None else None


def _fence_kind(language: str) -> Kind:
    return "code" if language in _CODE_FENCES else "output" if language == "output" else "other"


def _in_order(kinds: list[Kind], tagged: bool) -> bool:
    if not tagged and "output" not in kinds:
        return True
    waiting = False  # code whose output has not come
    for kind in kinds:
        if (kind == "output") != waiting:
            return False
        waiting = kind == "code"
    return not waiting
