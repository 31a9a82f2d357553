r"""A judge's score on a scale.

parse("The last step is unclear.\nScore: 3/4", high=4)  ->  3.0
parse("Score: 7/10", high=4)                            ->  None
"""

import re

from nemo_ext.prompts.plain_text import plain

NUMBER = r"(-?\d+(?:\.\d+)?)"
SCORE_LABEL = re.compile(rf"\b(?:score|grade|rating|mark)\b\s*(?:is|of|:|=|-)*\s*{NUMBER}", re.IGNORECASE)
OUT_OF = re.compile(rf"{NUMBER}\s*(?:/|out of)\s*(\d+)\b", re.IGNORECASE)
BARE = re.compile(rf"\W*?{NUMBER}[.\s]*")


def parse(reply: str, *, high: int, low: int = 0) -> float | None:
    """The score from `low` to `high`: after the last label ("Score: 3"), "3 out of 4", or a reply that is only a number.

    None for none, for two different ones, for one outside the scale, and for one on another scale ("7/10").
    """
    text = plain(reply)
    labelled = list(SCORE_LABEL.finditer(text))
    fractions = list(OUT_OF.finditer(text))
    if labelled:
        found = labelled[-1]
        if any(other.start() == found.start(1) and float(other[2]) != high for other in fractions):
            return None
        return _on_scale(float(found[1]), low, high)
    if fractions:
        scores = {float(match[1]) for match in fractions if float(match[2]) == high}
        return _on_scale(scores.pop(), low, high) if len(scores) == 1 else None
    bare = BARE.fullmatch(text) or BARE.fullmatch(text.rsplit("\n", 1)[-1])
    return _on_scale(float(bare[1]), low, high) if bare else None


def _on_scale(score: float, low: int, high: int) -> float | None:
    return score if low <= score <= high else None
