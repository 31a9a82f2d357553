r"""How a model marks code to run and is shown the result. Data, and three functions over text; no I/O.

llm_code (OpenMathInstruct-1)          fenced (ToRA, NuminaMath)
<llm-code>                             ```python
print(6 * 7)                           print(6 * 7)
</llm-code>                            ```
<llm-code-output>                      ```output
42                                     42
</llm-code-output>                     ```
"""

import re
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
    """A whole block, its code as group 1."""
    opening: re.Pattern[str]
    """The beginning of a block."""
    closing: str
    """The end of a block."""
    before_output: str
    after_output: str


LLM_CODE = Format(
    name="llm_code",
    stop=("</llm-code>",),
    stop_ends_block=True,
    block=re.compile(r"<llm-code>\n?((?:(?!<llm-code>).)*?)\n?</llm-code>", re.DOTALL),
    opening=re.compile(r"<llm-code>"),
    closing="</llm-code>",
    before_output="<llm-code-output>\n",
    after_output="\n</llm-code-output>\n",
)
FENCED = Format(
    name="fenced",
    stop=("```output",),
    stop_ends_block=False,
    block=re.compile(r"^```(?:python|py)[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE | re.IGNORECASE),
    opening=re.compile(r"^```(?:python|py)[ \t]*$", re.MULTILINE | re.IGNORECASE),
    closing="```",
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
    return Block(matches[-1].group(1), matches[-1].start(), matches[-1].end())


def is_open(form: Format, text: str) -> bool:
    """Whether a block begins in `text` and does not end."""
    last = 0
    for match in form.block.finditer(text):
        last = match.end()
    return form.opening.search(text, last) is not None


def with_output(form: Format, text: str, result: str) -> str:
    """The text, which ends with a block, and its result in the format's frame."""
    result = result.rstrip("\n")
    return f"{text.rstrip()}\n{form.before_output}{result}{form.after_output}"


def cut(text: str, max_chars: int, keep: Literal["head", "head_tail"] | str, marker: str) -> str:
    """At most `max_chars` characters of `text`, plus the marker where something is missing.

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
