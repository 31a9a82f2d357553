r"""Bring two spellings of an answer to one: LaTeX dressing removed, words and option letters in one form.

    normalise(r"\dfrac{1}{2}.")  ->  r"\frac{1}{2}"
    normalise(r"\text{(C)}")     ->  "C"

Nothing here rounds, rescales or reorders. Every step is linear in the length of the text.
"""

import re
from functools import lru_cache

from nemo_ext.grading.number_words import number_word

_TEXT_MACRO = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_REMOVED = re.compile(r"(?<!\\)\\(?:(?:left|right|big|Big|bigg|Bigg|displaystyle|limits)(?![A-Za-z])\.?|!)|\\?\$")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!)\s*(?=\d{3}(?!\d))")
_SPACE = re.compile(r"(?<!\\)\\(?:[,;: ]|q?quad(?![A-Za-z]))|~|\s+")
_LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_SINGLE_BRACED = re.compile(r"([_^])\{(\w)\}(?!\d)")
_FRAC_FIRST = re.compile(r"\\frac\s*(\w)")
_FRAC_SECOND = re.compile(r"(\\frac\{[^{}]*\})\s*(\w)")
_SQRT = re.compile(r"\\sqrt\s*(\w)")
_CHOICE = re.compile(r"\(([A-Z])\)|([A-J])\)")
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ '-][A-Za-z]+)*")
_REPLACED = (
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("\\%", "%"),
    ("\u2212", "-"),
    ("\u2013", "-"),
    ("\u00d7", "\\times "),
    ("\u00b7", "\\cdot "),
    ("\u03c0", "\\pi "),
    ("\u221e", "\\infty "),
    ("\u00b1", "\\pm "),
    ("\u2264", "\\le "),
    ("\u2265", "\\ge "),
    ("\u222a", "\\cup "),
    ("\u2208", "\\in "),
    ("\u00b2", "^2"),
    ("\u00b3", "^3"),
    ("\u00b0", "^\\circ"),
    ("\\degree", "^\\circ"),
    ("^{\\circ}", "^\\circ"),
    ("\\lbrace", "\\{"),
    ("\\rbrace", "\\}"),
    ("\\lvert", "|"),
    ("\\rvert", "|"),
)


@lru_cache(maxsize=16384)
def normalise(text: str) -> str:
    """One spelling for what LaTeX can write in several; case is kept except in answers made of words."""
    text = _TEXT_MACRO.sub(r" \1 ", text.strip())
    for old, new in _REPLACED:
        if old in text:
            text = text.replace(old, new)
    text = _SPACE.sub(" ", _REMOVED.sub("", _THOUSANDS.sub("", text)))
    text = _SINGLE_BRACED.sub(r"\1\2", text)
    text = _SQRT.sub(r"\\sqrt{\1}", _FRAC_SECOND.sub(r"\1{\2}", _FRAC_FIRST.sub(r"\\frac{\1}", text)))
    text = _LOOSE_SPACE.sub("", text).rstrip(".,;:")
    choice = _CHOICE.fullmatch(text)
    if choice:
        return choice[1] or choice[2]
    if _WORDS.fullmatch(text):
        # capitals alone are kept: AB may be a segment, and not the product that ab is
        return number_word(text.casefold()) or (text if text.isupper() else text.casefold())
    return text
