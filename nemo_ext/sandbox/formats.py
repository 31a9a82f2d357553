"""Formats in which a model marks code to run and is shown the result. Data, and three functions over text; no I/O.

llm_code (OpenMathInstruct-1)          fenced (ToRA, NuminaMath)
<llm-code>                             ```python
print(6 * 7)                           print(6 * 7)
</llm-code>                            ```
<llm-code-output>                      ```output
42                                     42
</llm-code-output>                     ```

Fences are read as models write them: up to three spaces before one, python, py or python3 in any case, a space before
that, lines that end in CR LF, a block indented as a whole, a closing fence at the end of the last line of code. A result
stays in its frame whatever it says: "```" in it makes its own fence longer (````output), and the "<" of a mark of the
other format is written "&lt;".
"""

import re
import textwrap
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Format:
    name: str
    stop: tuple[str, ...]
    """Where the model must stop; servers trim it from the text."""
    stop_ends_block: bool
    """The stop string is the block's end, rather than the beginning of its output."""
    block: re.Pattern[str]
    """A whole block, with the group `code`."""
    opening: re.Pattern[str]
    """The beginning of a block."""
    closing: str
    """The end of a block."""
    fence: str
    """What grows around a result that holds it; empty: marks in a result are escaped."""
    before_output: str
    after_output: str


CODE_LANGUAGES = ("python", "python3", "py")
AFTER_CODE = r"(?<=[^\s`])[ \t]*+"
"""Before a fence that closes a block at the end of its last line of code."""
_OPENING = rf"^ {{0,3}}```[ \t]*(?:{'|'.join(CODE_LANGUAGES)})[ \t]*\r?"
_FLAGS = re.MULTILINE | re.IGNORECASE
_FENCES = re.compile(r"^[ \t]*(`{3,})", re.MULTILINE)
_TAG = re.compile(r"<(?=/?llm-code(?:-output)?>)")

LLM_CODE = Format(
    name="llm_code",
    stop=("</llm-code>",),
    stop_ends_block=True,
    block=re.compile(r"<llm-code>(?:\r?\n)?(?P<code>(?:(?!<llm-code>).)*?)(?:\r?\n)?</llm-code>", re.DOTALL),
    opening=re.compile(r"<llm-code>"),
    closing="</llm-code>",
    fence="",
    before_output="<llm-code-output>\n",
    after_output="\n</llm-code-output>\n",
)
FENCED = Format(
    name="fenced",
    stop=("```output", "``` output"),
    stop_ends_block=False,
    block=re.compile(
        rf"{_OPENING}\n(?P<code>.*?)(?:^ {{0,3}}```+[ \t]*\r?$|{AFTER_CODE}```+\s*\Z)", _FLAGS | re.DOTALL
    ),
    opening=re.compile(rf"{_OPENING}$", _FLAGS),
    closing="```",
    fence="```",
    before_output="```output\n",
    after_output="\n```\n",
)
FORMATS = {one.name: one for one in (LLM_CODE, FENCED)}


@dataclass(frozen=True)
class Block:
    """`text[start:end]` is the block with its marks."""

    code: str
    start: int
    end: int


def find_block(form: Format, text: str) -> Block | None:
    """The block at the very end of what the model wrote since the last output; None if it wrote on, or wrote none.

    Only a block at the end is to be executed: one that the model continued without a result was never asked for.
    """
    matches = list(form.block.finditer(text))
    if not matches or text[matches[-1].end() :].strip():
        return None
    return Block(code_text(matches[-1]["code"]), matches[-1].start(), matches[-1].end())


def code_text(written: str) -> str:
    """What stands between two marks as Python takes it: lines that end in LF, without an indentation of the whole."""
    code = written.replace("\r\n", "\n")
    return textwrap.dedent(code) if code.lstrip("\n")[:1] in (" ", "\t") else code


def is_open(form: Format, text: str) -> bool:
    """Whether a block begins in `text` and does not end."""
    last = 0
    for match in form.block.finditer(text):
        last = match.end()
    return form.opening.search(text, last) is not None


def with_output(form: Format, text: str, result: str) -> str:
    """The text, which ends with a block, and its result in the format's frame, which nothing in the result ends."""
    result, before, after = result.rstrip("\n"), form.before_output, form.after_output
    if form.fence:
        longest = max(map(len, _FENCES.findall(result)), default=0)
        fence = "`" * max(len(form.fence), longest + 1)
        before, after = (part.replace(form.fence, fence) for part in (before, after))
    else:
        result = _TAG.sub("&lt;", result)
    return f"{text.rstrip()}\n{before}{result}{after}"


def cut(text: str, max_chars: int, keep: Literal["head", "head_tail"] | str, marker: str) -> str:
    """Return at most `max_chars` characters of `text`, plus the marker where something is missing.

    >>> cut("0123456789", 4, "head", "<output cut>")
    '0123<output cut>'
    >>> cut("0123456789", 4, "head_tail", "...")
    '01...89'
    """
    if len(text) <= max_chars:
        return text
    if keep == "head":
        return text[:max_chars] + marker
    head = (max_chars + 1) // 2
    tail = max_chars - head
    return text[:head] + marker + text[len(text) - tail :]
