r"""The items of a YAML list of texts.

parse("```yaml\n- Algebra\n- 'Number theory'\n```")  ->  ["Algebra", "Number theory"]
parse("- Algebra: groups\n- Primes, 2 to 97")        ->  ["Algebra: groups", "Primes, 2 to 97"]
"""

import yaml

from nemo_ext.prompts.markdown_blocks import blocks

BEGINS_OTHERWISE = ("'", '"', "|", ">", "[", "{", "&", "*", "!", "- ")
"""Characters that a YAML value begins with when it is not plain text."""


def parse(reply: str) -> list[str] | None:
    """The items of the reply's one list, each as it is written ("1.50" stays "1.50"). A colon in a line needs no quotes.

    The list stands in a fenced block, or by itself with text before and after it. None: no list, several, an item that is
    empty or holds more than a text.
    """
    lines = _listed(reply)
    if lines is None:
        return None
    try:
        items = yaml.load("\n".join(lines), yaml.BaseLoader)  # noqa: S506 - which makes texts and lists, and nothing else
    except (yaml.YAMLError, RecursionError, ValueError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        items = _one_a_line(lines)
    return items if items and all(item.strip() for item in items) else None


def _listed(reply: str) -> list[str] | None:
    """The lines of the one list: from its first "- " to the last line that is an item or is indented."""
    tokens, lines = blocks(reply)
    fences = [token.content.split("\n") for token in tokens if token.type == "fence" and token.level == 0]
    if len(fences) > 1:
        return None
    lines = fences[0] if fences else lines
    belongs = [_is_item(line) or line[:1].isspace() or not line for line in lines]
    first = next((place for place, line in enumerate(lines) if _is_item(line)), None)
    if first is None:
        return None
    after = next((place for place in range(first, len(lines)) if not belongs[place]), len(lines))
    nested = any(map(_is_item, map(str.lstrip, (line for line in lines[first:after] if line[:1].isspace()))))
    return None if nested or any(map(_is_item, lines[after:])) else lines[first:after]


def _is_item(line: str) -> bool:
    return line == "-" or line.startswith("- ")


def _one_a_line(lines: list[str]) -> list[str] | None:
    texts = [line.removeprefix("- ").strip() for line in lines if line.strip()]
    plain = all(map(_is_item, filter(str.strip, lines))) and not any(
        text.startswith(BEGINS_OTHERWISE) for text in texts
    )
    return texts if plain else None
