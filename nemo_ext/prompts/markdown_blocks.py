"""The blocks of a reply's Markdown, as CommonMark has them (markdown-it-py)."""

from markdown_it import MarkdownIt
from markdown_it.token import Token

_BLOCKS = MarkdownIt("commonmark").disable("inline")


def blocks(reply: str) -> tuple[list[Token], list[str]]:
    """(tokens, the lines that their `map` counts)."""
    text = reply.replace("\r\n", "\n").replace("\r", "\n")
    return _BLOCKS.parse(text), text.split("\n")
