"""The results of executed code in an answer, which a sandbox wrote and no model.

    "<llm-code>\nprint(6 * 7)\n</llm-code>\n<llm-code-output>\n42\n</llm-code-output>\nIt is 42."  ->  the span of "42"

A span is what stands between the marks' own lines: the marks stay outside, with the line breaks beside them. Marks that are
not clearly those of a result make a row unusable, as a span would end where nobody can say. They are nested, unclosed, or
stand elsewhere than behind a block of code: a program or its result has printed them.
"""

import re
from collections.abc import Iterable, Iterator

from nemo_ext.rows.outside.columns import BadRow

REASON = "unclear_tool_output"
Span = tuple[int, int]
"""First character, and the one after the last."""
_TAG = re.compile(r"</?llm-code-output>")
_RESULT = re.compile(
    r"</llm-code>\s*<llm-code-output>(?:\r?\n)?(?P<result>(?:(?!</?llm-code-output>).)*?)(?:\r?\n)?</llm-code-output>",
    re.DOTALL,
)
_FENCE = re.compile(r"^ {0,3}(?P<ticks>`{3,})[ \t]*(?P<info>[^`\r\n]*?)[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
_OUTPUT = "output"


def tool_outputs(text: str) -> list[Span]:
    """The spans of results in either format (nemo_ext/sandbox/formats.py), in order.

    Raises:
        BadRow: REASON, with what is unclear.
    """
    tagged = list(_between_tags(text))
    return sorted([*tagged, *_in_fences(_blanked(text, tagged))])


def _between_tags(text: str) -> Iterator[Span]:
    found = list(_RESULT.finditer(text))
    tags = _TAG.findall(text)
    if len(tags) != 2 * len(found):
        raise BadRow(
            REASON,
            f"{len(tags)} marks of <llm-code-output>, of which {2 * len(found)} are around a result that follows "
            "</llm-code>; the others are nested, unclosed or printed",
        )
    yield from (match.span("result") for match in found)


def _in_fences(text: str) -> Iterator[Span]:
    """Of ```output blocks. A fence ends at the next line with at least as many ticks and nothing else."""
    fences = list(_FENCE.finditer(text))
    if not any(fence["info"] == _OUTPUT for fence in fences):
        return
    opened: re.Match[str] | None = None
    for fence in fences:
        if opened is None:
            if not fence["info"]:
                raise BadRow(REASON, "a fence without a language after an ```output block: a result has printed one")
            opened = fence
        elif not fence["info"] and len(fence["ticks"]) >= len(opened["ticks"]):
            if opened["info"] == _OUTPUT:
                yield opened.end(), max(opened.end(), _before_break(text, fence.start()))
            opened = None
    if opened is not None:
        raise BadRow(REASON, f"a block ```{opened['info']} is not closed")


def _before_break(text: str, end: int) -> int:
    """`end` without the line break before it."""
    if text[:end].endswith("\r\n"):
        return end - 2
    return end - 1 if text[:end].endswith("\n") else end


def _blanked(text: str, spans: Iterable[Span]) -> str:
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def tokens_within(spans: Iterable[Span], offsets: list[Span]) -> frozenset[int]:
    """Indices of the tokens that hold a character of a span: one that straddles a border belongs to the result, as it
    would teach to write a part of it.

    Args:
        offsets: each token's characters; several tokens may share one.

    Raises:
        ValueError: no token holds a character of a span.
    """
    found: set[int] = set()
    for start, end in spans:
        if start == end:
            continue
        inside = [index for index, (first, last) in enumerate(offsets) if first < end and last > start]
        covered = {place for index in inside for place in range(*offsets[index])}
        if not covered.issuperset(range(start, end)):
            raise ValueError(
                f"characters {start} to {end} of the answer are in no token. This is a bug: please report it"
            )
        found.update(inside)
    return frozenset(found)
