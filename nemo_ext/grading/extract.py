r"""Find the final answer in the text of a solution.

    extract_answer(r"3 * 4 = 12, so the answer is \boxed{12}.")  ->  "12"
    extract_answer("So the answer is (C).")                      ->  "C"

Unlike the NeMo-Skills extractor it also reads `\boxed 5`, `\boxed\frac{7}{2}`, `\boxed {6}`, `\fbox{5}` and `\\boxed{5}` (of
files escaped twice), and goes back to an earlier whole box when the last one was cut off, is empty or is not an answer ("in
\boxed{...} notation"). What stands between <think> and </think> is no part of the answer; where </think> is missing, nothing
behind <think> is. Neither is code, nor what it printed. Every extractor is linear in the length of the text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from nemo_ext.curation.code_blocks import without_code

# An escaped character (such as \{) is one token, so it never counts as a brace.
_TOKENS = re.compile(r"\\{1,2}(?:boxed|fbox)(?![A-Za-z])\s*(?P<brace>\{)?|\\.|[{}]", re.DOTALL)
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_GROUP = r"\{(?:[^{}\n]|\{[^{}\n]{0,99}\}){0,99}\}"
_BARE_ANSWER = re.compile(rf"[-+]?\d*\\[A-Za-z]{{1,20}}(?:{_GROUP}){{0,2}}\w{{0,9}}|[^\s${{}}\\]+")
_ANSWER_AT_ALL = re.compile(r"\d|\\|^\W*\w\W*$")  # of a bare box: "\boxed notation" is prose
# What leaves nothing behind in a box: spaces, dots, blanks to fill in, the frames of an empty text.
_NO_CONTENT = re.compile(
    r"\\(?:h?phantom|hspace)\{[^{}]*\}|\\(?:text(?:bf|rm|it)?|mathrm|mathbf|mbox|boxed|fbox|q?quad|[lc]?dots[bc]?|square)(?![A-Za-z])"
    r"|\\[,;:!_ ]|[\s{}$_.,?()\[\]\u2026]"
)
_SAYS_ANSWER = re.compile(r"(?:the|your|final|correct)*answer(?:here)?", re.IGNORECASE)
_PLACEHOLDER_CHARS = 60
_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THE_ANSWER_IS = re.compile(r"the (?:final )?answer is\b(?P<colon>:?)[ \t]*(?P<answer>[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_HASH = re.compile(r"####[ \t]*(?P<answer>[^\n]*)")
_LABEL = re.compile(
    r"^[^\w\n]*(?:final )?answer[^\w\n]{0,9}(?P<colon>[:=])(?P<answer>[^\n]*)"
    r"|^[ \t]{0,3}(?:#{1,6}|\*\*)[^\w\n]{0,9}(?:the )?(?:final )?answer(?P<heading>[^\w\n]{0,9})$",
    re.IGNORECASE | re.MULTILINE,
)
_NOTHING = re.compile(r"[*_$ \t]*(?:\\[\[(])?[ \t]*")
_NEXT_LINE = re.compile(r"\s*(?:(?:\\\[|\$\$)\s+)?(?P<answer>[^\n]+)")
_MATHEMATICAL = re.compile(r"[$\\*\d(+-]")
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


def without_thought(text: str) -> str:
    """The text with spaces in place of what is thought and not said, so that every position stays."""
    kept, start, depth = [], 0, 0  # start: of what is said
    for tag in _THOUGHT.finditer(text):
        if not tag[1]:
            if depth == 0:
                kept.append(text[start : tag.start()])
            depth, start = depth + 1, start if depth else tag.start()
        else:
            if depth == 0:  # the prompt held the opening tag: all so far was thought
                kept, start = [], 0
            depth = max(depth - 1, 0)
            if depth == 0:
                kept.append(" " * (tag.end() - start))
                start = tag.end()
    if not kept:
        return text
    return "".join(kept) + (text[start:] if depth == 0 else " " * (len(text) - start))


def said(text: str) -> str:
    """The text with spaces in place of thoughts, code and what code printed: a box there is no answer."""
    return without_code(without_thought(text))


def last_box(text: str) -> Box | None:
    """The complete box that starts last and is not empty or of dots alone, or None. Linear, so hostile text costs no more
    than any other."""
    text = said(text)
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    return _box_at(text, start) or _last_whole_box(text)


def _box_at(text: str, start: int) -> Box | None:
    r"""The box of the `\boxed{` at `start`, if it is whole; most solutions end in one."""
    opened = _TOKENS.match(text, start)
    if opened is None or not opened.group("brace") or text[start - 1 : start] == "\\":
        return None
    depth = 1
    for brace in _BRACES.finditer(text, opened.end()):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return _filled(Box(start, brace.end(), text[opened.end() : brace.start()].strip()))
    return None


def _filled(box: Box) -> Box | None:
    """The box, or None where it is empty or "your answer" is to be filled in."""
    if len(box.content) > _PLACEHOLDER_CHARS:
        return box
    held = _NO_CONTENT.sub("", box.content)
    return box if held and not _SAYS_ANSWER.fullmatch(held) else None


def _last_whole_box(text: str) -> Box | None:
    best: Box | None = None
    open_braces: list[tuple[int, int] | None] = []  # (start of the box, start of its content), None for other braces
    for token in _TOKENS.finditer(text):
        found: Box | None = None
        if token.group("brace"):
            open_braces.append((token.start(), token.end()))
        elif token.group().lstrip("\\").startswith(("boxed", "fbox")):
            found = _bare_box(text, token.start(), token.end())
        elif token.group() == "{":
            open_braces.append(None)
        elif token.group() == "}" and open_braces:
            opened = open_braces.pop()
            if opened is not None and (best is None or opened[0] > best.start):
                found = _filled(_braced_box(text, *opened, token.start()))
        if found is not None and (best is None or found.start > best.start):
            best = found
    return best


def _braced_box(text: str, start: int, content_start: int, content_end: int) -> Box:
    content = text[content_start:content_end].strip()
    if text.startswith("\\\\", start):  # escaped twice, and so is what it holds
        content = content.replace("\\\\", "\\")
    return Box(start, content_end + 1, content)


def _bare_box(text: str, start: int, content_start: int) -> Box | None:
    r"""`\boxed 5`: the answer is the next run of characters, without the punctuation that closes a sentence."""
    match = _BARE_ANSWER.match(text, content_start)
    content = match.group().rstrip(".,;:") if match else ""
    if match is None or not _ANSWER_AT_ALL.search(content):
        return None
    return _filled(Box(start, match.start() + len(content), content))


def boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{}` or `\fbox{}` that is not empty; None when there is none."""
    box = last_box(text)
    return box.content if box is not None else None


def the_answer_is(text: str) -> str | None:
    """What follows the last "The answer is" (with or without a colon) in its sentence; a box in it is opened."""
    return _stated(_THE_ANSWER_IS, text)


def _stated(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for last in pattern.finditer(text):  # noqa: B007  the last one is wanted
        pass
    if last is None:
        return None
    line = last.group("answer") or ""
    if _NOTHING.fullmatch(line):
        line = _next_line(text, last)
    if (box := last_box(line)) is not None:
        return box.content
    end = _SENTENCE_END.search(line)
    found = _undelimited(line[: end.start()] if end else line)
    return None if "\\boxed" in found or "\\fbox" in found else found or None  # of an empty box, or one cut off


def _next_line(text: str, stated: re.Match[str]) -> str:
    """The next line that is not blank, where a colon or a heading promises it, or where it is mathematics."""
    following = _NEXT_LINE.match(text, stated.end())
    if following is None or following["answer"].startswith("#"):
        return ""
    is_promised = stated["colon"] or stated.groupdict().get("heading") is not None
    return following["answer"] if is_promised or _MATHEMATICAL.match(following["answer"]) else ""


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
    return EXTRACTORS[extractor](said(text))
