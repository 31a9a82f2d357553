"""The last program, or other fenced block, of a reply.

parse("First:\\n```python\\nprint(1)\\n```\\nBetter:\\n```python\\nprint(2)\\n```\\n")  ->  "print(2)"
"""

from markdown_it.token import Token

from nemo_ext.prompts.markdown_blocks import blocks


def parse(reply: str, *, language: str | None = None) -> str | None:
    """What the last fenced block holds, without the last newline; of those that are marked `language`, where that is given.

    None: there is none, it is empty, or the last block of the reply was cut before its closing fence.
    """
    tokens, lines = blocks(reply)
    fences = [token for token in tokens if token.type == "fence"]
    if fences and not _is_closed(fences[-1], lines):
        return None
    wanted = [each for each in fences if language is None or each.info.split()[:1] == [language]]
    text = wanted[-1].content.removesuffix("\n") if wanted else ""
    return text if text.strip() else None


def _is_closed(fence: Token, lines: list[str]) -> bool:
    assert fence.map is not None, "every block has its lines"
    start, end = fence.map
    last = lines[end - 1].strip(" \t>")
    return end - 1 > start and last.startswith(fence.markup) and not last.strip(fence.markup[0])
