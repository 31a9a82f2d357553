"""Answers that are words alone: "seat" is not "east", though the product of its letters is."""

import re

from nemo_ext.grading.verdict import DIFFERENT, EQUAL, Verdict

_PHRASE = re.compile(r"[A-Za-z ,.;'!?-]+")
_LONG_WORD = re.compile(r"[A-Za-z]{4}")
_BREAK = re.compile(r",(?: ?and )?| and |;")
_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?\b|sqrt|log|exp")
# What answers a row of questions: there, which comes first matters.
_REPLY_WORDS = """yes no true false t f y n odd even neither both positive negative zero rational irrational increasing
    decreasing more less equal greater always never sometimes possible impossible correct incorrect right wrong valid invalid
    prime composite convergent divergent converges diverges continuous discontinuous independent dependent up down left heads
    tails"""
_REPLIES = frozenset(_REPLY_WORDS.split())


def compare_phrases(left: str, right: str) -> Verdict | None:
    """None where neither answer is words alone. Names in a list have no order, unless one is named twice."""
    if not (_is_phrase(left) or _is_phrase(right)):
        return None
    ours, theirs = _parts(left), _parts(right)
    ordered = _has_order(ours) or _has_order(theirs)
    same = ours == theirs if ordered else set(ours) == set(theirs)
    return Verdict(EQUAL if same else DIFFERENT, "text")


def _is_phrase(text: str) -> bool:
    if not _PHRASE.fullmatch(text):
        return False
    if _LONG_WORD.search(text) or (text.isalpha() and text.isupper() and len(text) > 1):
        return not _FUNCTION.match(text)
    return any(len(each) > 1 and each in _REPLIES for each in _parts(text))


def _has_order(parts: list[str]) -> bool:
    return len(parts) > 1 and (len(set(parts)) < len(parts) or _REPLIES.issuperset(parts))


def _parts(text: str) -> list[str]:
    parts = (part.strip(" .!?") for part in _BREAK.split(text.casefold()))
    return [part.removeprefix("the ") for part in parts if part]
