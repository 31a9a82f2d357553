r"""A judge's yes or no.

parse("True.")                                            ->  True
parse("The second has an extra root.\nVerdict: **no**")    ->  False
parse("Both true and false readings are possible.")       ->  None
"""

import re
from collections.abc import Iterable

from nemo_ext.prompts.plain_text import plain

TRUE, FALSE = frozenset(("true", "yes")), frozenset(("false", "no"))
LABEL = re.compile(
    r"\b(?:verdict|judge?ment|answer|conclusion|result|decision|reply)\s*(?:is\b|:|=)\s*", re.IGNORECASE
)
WORD = re.compile(r"\b(true|false|yes|no)\b", re.IGNORECASE)
ALONE = re.compile(r"\W*(true|false|yes|no)\b\W*", re.IGNORECASE)
LEADING = re.compile(r"\W*(true|false|yes|no)\s*(?:[.,;:!)\n]|[-\u2013\u2014]\s|$)", re.IGNORECASE)
NEGATED = re.compile(
    r"\b(?:not|\w+n['\u2019]t|never|neither|cannot)\W+(?:\w+\W+){0,2}?(?:true|false)\b", re.IGNORECASE
)


def parse(reply: str) -> bool | None:
    """True for "true" and "yes", False for "false" and "no"; None when undecided.

    In this order: what follows the last label ("Verdict: ..."), a last line or a beginning that is the verdict alone, and
    else the one verdict that the text has, unless it is negated or "no" is only a word in a sentence.
    """
    text = plain(reply)
    labels = list(LABEL.finditer(text))
    if labels and (match := LEADING.match(text[labels[-1].end() :])):
        return _as_bool(match[1])
    if last := ALONE.fullmatch(text.rsplit("\n", 1)[-1]):
        return _as_bool(last[1])
    words = [word.lower() for word in WORD.findall(NEGATED.sub(" ", text))]
    if first := LEADING.match(text):
        return _as_bool(first[1]) if {_as_bool(word) for word in words} == {_as_bool(first[1])} else None
    verdicts = {_as_bool(word) for word in words if word in ("true", "false")}
    return verdicts.pop() if len(verdicts) == 1 and not NEGATED.search(text) else None


def agreed(replies: Iterable[str | None]) -> bool | None:
    """The verdict that all replies give; None where they differ, one says nothing clear, or one is not there."""
    verdicts = {None if reply is None else parse(reply) for reply in replies}
    return verdicts.pop() if len(verdicts) == 1 else None


def _as_bool(word: str) -> bool:
    return word.lower() in TRUE
