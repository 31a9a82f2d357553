r"""Find the final answer in the text of a solution.

    extract_answer(r"3 * 4 = 12, so the answer is \boxed{12}.")  ->  "12"

Unlike the NeMo-Skills extractor it also reads `\boxed 5`, `\boxed {5}` and `\fbox{5}`, and goes back to an earlier
whole box when the last one was cut off. Every extractor is linear in the length of the text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

# An escaped character (such as \{) is one token, so it never counts as a brace.
_TOKENS = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?P<brace>\{)?|\\.|[{}]", re.DOTALL)
_BARE_ANSWER = re.compile(r"[^\s${}\\]+")
_THE_ANSWER_IS = re.compile(r"the (?:final )?answer is\b:?[ \t]*(?P<answer>[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_HASH = re.compile(r"####[ \t]*(?P<answer>[^\n]*)")


@dataclass(frozen=True)
class Box:
    r"""A whole box: `text[start:end]` is all of `\boxed{...}`, `content` what it holds."""

    start: int
    end: int
    content: str


def last_box(text: str) -> Box | None:
    """The complete box that starts last, or None. One pass, so hostile text costs no more than any other."""
    best: Box | None = None
    open_braces: list[tuple[int, int] | None] = []  # (start of the box, start of its content), None for other braces
    for token in _TOKENS.finditer(text):
        found: Box | None = None
        if token.group("brace"):
            open_braces.append((token.start(), token.end()))
        elif token.group().startswith(("\\boxed", "\\fbox")):
            found = _bare_box(text, token.start(), token.end())
        elif token.group() == "{":
            open_braces.append(None)
        elif token.group() == "}" and open_braces:
            opened = open_braces.pop()
            if opened is not None:
                found = Box(opened[0], token.end(), text[opened[1] : token.start()].strip())
        if found is not None and (best is None or found.start > best.start):
            best = found
    return best


def _bare_box(text: str, start: int, content_start: int) -> Box | None:
    """`\\boxed 5`: the answer is the next run of characters, without the punctuation that closes a sentence."""
    match = _BARE_ANSWER.match(text, content_start)
    if match is None:
        return None
    content = match.group().rstrip(".,;:")
    return Box(start, match.start() + len(content), content)


def boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{}` or `\fbox{}`; None when there is none or it is empty."""
    box = last_box(text)
    return box.content or None if box is not None else None


def the_answer_is(text: str) -> str | None:
    """What follows the last "The answer is" (with or without a colon) in its sentence; a box in it is opened."""
    matches = list(_THE_ANSWER_IS.finditer(text))
    if not matches:
        return None
    line = matches[-1].group("answer")
    if last_box(line) is not None:
        return boxed(line)
    end = _SENTENCE_END.search(line)
    sentence = line[: end.start()] if end else line
    return sentence.strip().strip("$").strip() or None


def hash_mark(text: str) -> str | None:
    """What follows the last `####` on its line, as in GSM8K."""
    matches = list(_HASH.finditer(text))
    return (matches[-1].group("answer").strip() or None) if matches else None


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "boxed": boxed,
    "the_answer_is": the_answer_is,
    "hash": hash_mark,
}


def extract_answer(text: str, extractor: str = "boxed") -> str | None:
    """The final answer in `text` by the named extractor, or None.

    Raises ValueError for an unknown extractor.
    """
    if extractor not in EXTRACTORS:
        raise ValueError(f"extractor: got {extractor!r}, choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[extractor](text)
