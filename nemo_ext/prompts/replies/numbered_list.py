r"""The items of a numbered list.

parse("Three topics:\n\n1. Algebra\n2. Number theory\n3. **Geometry**\n\nShall I go on?")
    ->  ["Algebra", "Number theory", "Geometry"]
"""

import textwrap

from markdown_it.token import Token

from nemo_ext.prompts.markdown_blocks import blocks


def parse(reply: str) -> list[str] | None:
    """The items of the reply's one list that is numbered 1, 2, 3, ..., as CommonMark reads it: what is indented below an
    item belongs to it, what stands before and after the list does not.

    None: no such list, two of them (a paragraph that is not indented ends a list), a number missing, repeated or out of
    order, an empty item, or one item alone with text behind it, which may be its own.
    """
    tokens, lines = blocks(reply)
    outer = [token for token in tokens if token.level == 0]
    lists = [place for place, token in enumerate(outer) if token.type == "ordered_list_open"]
    if len(lists) != 1:
        return None
    items = [token for token in tokens if token.type == "list_item_open" and token.level == 1 and token.info]
    texts = [_text(item, lines) for item in items]
    in_order = [item.info for item in items] == [str(number) for number in range(1, len(items) + 1)]
    alone = len(items) == 1 and lists[0] + 2 < len(outer)
    return texts if in_order and all(texts) and not alone else None


def _text(item: Token, lines: list[str]) -> str:
    assert item.map is not None, "every block has its lines"
    first, *others = lines[item.map[0] : item.map[1]]
    beginning = first.lstrip().removeprefix(f"{item.info}{item.markup}").strip()
    text = "\n".join([beginning, textwrap.dedent("\n".join(others))]).strip()
    is_bold = len(text) > 4 and text.startswith("**") and text.endswith("**") and "**" not in text[2:-2]
    return text[2:-2].strip() if is_bold else text
