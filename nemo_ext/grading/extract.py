r"""Find the final answer in the text of a solution.

    extract_answer(r"3 * 4 = 12, so the answer is \boxed{12}.")  ->  "12"
    extract_answer("So the answer is (C).")                      ->  "C"

Unlike the NeMo-Skills extractor it also reads `\boxed 5`, `\boxed {5}` and `\fbox{5}`, and goes back to an earlier
whole box when the last one was cut off. Every extractor is linear in the length of the text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

# An escaped character (such as \{) is one token, so it never counts as a brace.
_TOKENS = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?P<brace>\{)?|\\.|[{}]", re.DOTALL)
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_ANSWER = re.compile(r"[^\s${}\\]+")
_THE_ANSWER_IS = re.compile(r"the (?:final )?answer is\b:?[ \t]*(?P<answer>[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_HASH = re.compile(r"####[ \t]*(?P<answer>[^\n]*)")
_LABEL = re.compile(r"^[^\w\n]*(?:final )?answer[^\w\n]{0,9}[:=](?P<answer>[^\n]+)", re.IGNORECASE | re.MULTILINE)
_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))
_TEXT_DRESSING = re.compile(r"\\text(?:bf)?\{|[{}]")
_OPTION = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice)\s+)?(?:\(([A-Ja-j])\)|([A-J])\)?)[.:]?(?![A-Za-z])")
_OPTION_SEEN = re.compile(r"\(([A-J])\)|\b([A-J])(?=[.):]|$)")


@dataclass(frozen=True)
class Box:
    r"""A whole box: `text[start:end]` is all of `\boxed{...}`, `content` what it holds."""

    start: int
    end: int
    content: str


def last_box(text: str) -> Box | None:
    """The complete box that starts last, or None. Linear, so hostile text costs no more than any other."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    if text[start - 1 : start] != "\\" and (found := _box_at(text, start)) is not None:
        return found
    return _last_whole_box(text)


def _box_at(text: str, start: int) -> Box | None:
    r"""The box of the `\boxed{` at `start`, if it is whole; most solutions end in one."""
    opened = _TOKENS.match(text, start)
    if opened is None or not opened.group("brace"):
        return None
    depth = 1
    for brace in _BRACES.finditer(text, opened.end()):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return Box(start, brace.end(), text[opened.end() : brace.start()].strip())
    return None


def _last_whole_box(text: str) -> Box | None:
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
    return _stated(_THE_ANSWER_IS, text)


def _stated(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for last in pattern.finditer(text):  # noqa: B007  the last one is wanted
        pass
    if last is None:
        return None
    line = last.group("answer")
    if last_box(line) is not None:
        return boxed(line)
    end = _SENTENCE_END.search(line)
    return _undelimited(line[: end.start()] if end else line) or None


def _undelimited(text: str) -> str:
    r"""Without the $, \(, ** and the like around it."""
    text = text.strip()
    for opened, closed in _DELIMITERS:
        if text.startswith(opened):
            text = text.removeprefix(opened).removesuffix(closed)
        elif text.endswith(closed) and opened not in text[: -len(closed)]:
            text = text.removesuffix(closed)
    return text.strip().strip("$").strip()


def hash_mark(text: str) -> str | None:
    """What follows the last `####` on its line, as in GSM8K."""
    start = text.rfind("####")
    match = _HASH.match(text, start) if start >= 0 else None
    return (match.group("answer").strip() or None) if match else None


def letter(text: str) -> str | None:
    """The option, A to J: of the stated answer, or else the last one named, "(C)" or "C."."""
    stated = final_answer(text)
    if stated is not None:
        seen = _OPTION.match(_TEXT_DRESSING.sub("", stated))
        return (seen[1] or seen[2]).upper() if seen else None
    named = [match[1] or match[2] for match in _OPTION_SEEN.finditer(text)]
    return named[-1] if named else None


def final_answer(text: str) -> str | None:
    """The last box; without one what is stated as "The answer is" or "Answer:"; else what follows ####."""
    if (found := boxed(text)) is not None:
        return found
    found = the_answer_is(text) or _stated(_LABEL, text)
    if found is None:
        return hash_mark(text)
    option = _OPTION.fullmatch(found)
    return (option[1] or option[2]).upper() if option else found


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "default": final_answer,
    "boxed": boxed,
    "the_answer_is": the_answer_is,
    "hash": hash_mark,
    "letter": letter,
}


def extract_answer(text: str, extractor: str = "default") -> str | None:
    """The final answer in `text` by the named extractor, or None.

    Raises ValueError for an unknown extractor.
    """
    if extractor not in EXTRACTORS:
        raise ValueError(f"extractor: got {extractor!r}, choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[extractor](text)
