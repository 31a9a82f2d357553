r"""What an LLM judge's reply says: a verdict or a score, or None when it does not say so clearly.

    parse_verdict("True.")                                        -> True
    parse_verdict("The second has an extra root.\nVerdict: **no**") -> False
    parse_verdict("Both true and false readings are possible.")   -> None
    parse_score("The last step is unclear.\nScore: 3/4", high=4)  -> 3

An unclear reply is never taken for a clear one: the caller decides what to do with None (ask again, keep, drop).
"""

import re

TRUE, FALSE = frozenset(("true", "yes")), frozenset(("false", "no"))
MARKUP = re.compile(r"[*_`\"#>|]+|(?<!\w)'|'(?!\w)")
LABEL = re.compile(
    r"\b(?:verdict|judge?ment|answer|conclusion|result|decision|reply)\s*(?:is\b|:|=)\s*", re.IGNORECASE
)
WORD = re.compile(r"\b(true|false|yes|no)\b", re.IGNORECASE)
ALONE = re.compile(r"\W*(true|false|yes|no)\b\W*", re.IGNORECASE)
LEADING = re.compile(r"\W*(true|false|yes|no)\s*(?:[.,;:!)\n]|[-\u2013\u2014]\s|$)", re.IGNORECASE)
NEGATED = re.compile(
    r"\b(?:not|\w+n['\u2019]t|never|neither|cannot)\W+(?:\w+\W+){0,2}?(?:true|false)\b", re.IGNORECASE
)
NUMBER = r"(-?\d+(?:\.\d+)?)"
SCORE_LABEL = re.compile(rf"\b(?:score|grade|rating|mark)\b\s*(?:is|of|:|=|-)*\s*{NUMBER}", re.IGNORECASE)
OUT_OF = re.compile(rf"{NUMBER}\s*(?:/|out of)\s*(\d+)\b", re.IGNORECASE)
BARE = re.compile(rf"\W*?{NUMBER}[.\s]*")


def parse_verdict(reply: str) -> bool | None:
    """True for "true" and "yes", False for "false" and "no"; None when undecided.

    In this order: what follows the last label ("Verdict: ..."), a last line or a beginning that is the verdict alone, and
    else the one verdict that the text has, unless it is negated or "no" is only a word in a sentence.
    """
    text = MARKUP.sub("", reply).strip()
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


def _as_bool(word: str) -> bool:
    return word.lower() in TRUE


def parse_score(reply: str, high: int, low: int = 0) -> float | None:
    """The score from `low` to `high`: after the last label ("Score: 3"), "3 out of 4", or a reply that is only a number.

    None for none, for two different ones, for one outside the scale, and for one on another scale ("7/10").
    """
    text = MARKUP.sub("", reply).strip()
    labelled = list(SCORE_LABEL.finditer(text))
    fractions = list(OUT_OF.finditer(text))
    if labelled:
        found = labelled[-1]
        if any(other.start() == found.start(1) and int(other[2]) != high for other in fractions):
            return None
        return _on_scale(float(found[1]), low, high)
    if fractions:
        scores = {float(match[1]) for match in fractions if int(match[2]) == high}
        return _on_scale(scores.pop(), low, high) if len(scores) == 1 else None
    bare = BARE.fullmatch(text) or BARE.fullmatch(text.rsplit("\n", 1)[-1])
    return _on_scale(float(bare[1]), low, high) if bare else None


def _on_scale(score: float, low: int, high: int) -> float | None:
    return score if low <= score <= high else None
