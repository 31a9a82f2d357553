r"""Bring two spellings of an answer to one: LaTeX dressing removed, words and option letters in one form.

    normalise(r"\dfrac{1}{2}.")  ->  r"\frac{1}{2}"
    normalise(r"\text{(C)}")     ->  "C"
    normalise(r"\pi\text{ m}")   ->  r"\pi meter"

Nothing here rounds, rescales or reorders. Every step is linear in the length of the text.
"""

import re
from functools import lru_cache

from nemo_ext.grading.reading.number_words import number_word
from nemo_ext.grading.reading.units import spelled_out

_TEXT_MACRO = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_REMOVED = re.compile(r"(?<!\\)\\(?:(?:left|right|big|Big|bigg|Bigg|displaystyle|limits)(?![A-Za-z])\.?|!)|\\?\$")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!)\s*(?=\d{3}(?!\d))")
_SPACE = re.compile(r"(?:(?<!\\)\\(?:[,;: ]|q?quad(?![A-Za-z]))|~|\s)+")
_LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_SINGLE_BRACED = re.compile(r"([_^])\{(\w)\}(?!\d)")
_FRAC_FIRST = re.compile(r"\\frac\s*(\w)")
_FRAC_SECOND = re.compile(r"(\\frac\{[^{}]*\})\s*(\w)")
_SQRT = re.compile(r"\\sqrt\s*(\w)")
_CHOICE = re.compile(r"\(([A-Z])\)|([A-J])\)")
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ '-][A-Za-z]+)*")
_DRESSED = re.compile(
    r"\*\*(.+)\*\*|__(.+)__|\*([^*]+)\*|`([^`]+)`|'(\w+)'|\\\((.+)\\\)|\\\[(.+)\\\]"
    r"|\\(?:boxed|fbox)\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}",
    re.DOTALL,
)
_RANGE = re.compile(r"(?<=\d)[ $\\]*(?:--|\u2013)[ $\\]*(?=\d)|(?<=\d) ?-(?=\\\$\d)")
_DOTS = re.compile(r"\\(?:dots[cb]?|cdots)(?![A-Za-z])|\.\.\.|\u2026")
_TURNED_INTERVAL = re.compile(r"([\[\]])([^\[\](),]*,[^\[\](),]*)([\[\]])")
_WORDS_IN_BRACKETS = re.compile(r"(\d) *\( *([A-Za-z][A-Za-z' .-]*)\)$")
_CURRENCIES = {
    "\\$": "dollars", "US\\$": "dollars", "USD": "dollars", "\u20ac": "euros", "EUR": "euros", "\u00a3": "gbp", "GBP": "gbp",
    "\u20b9": "rupees", "INR": "rupees", "Rs": "rupees", "Rs.": "rupees", "\u00a5": "yen", "JPY": "yen", "CNY": "yuan",
    "RMB": "yuan",
}  # fmt: skip
_SIGNS = "|".join(re.escape(each) for each in sorted(_CURRENCIES, key=len, reverse=True))
_CURRENCY_FIRST = re.compile(
    rf"^\s*([-+]?)\s*({_SIGNS})\s*(-?\d[\d,.]*?)[.\s]*((?:hundred|thousand|[mb]illion)?)\s*((?:[A-Za-z/][A-Za-z .'-]*)?)$",
    re.ASCII,
)
_LABEL = re.compile(r"^(?:the )?(?:final |correct )?answer(?: is)?[: ] ?(?=.)", re.IGNORECASE)
_BASED = re.compile(r"(?:(\d[0-9A-Za-z]*)|\(([0-9A-Za-z]*\d[0-9A-Za-z]*)\))_\{?(\d{1,2}|[a-z]{3,9})\}?", re.ASCII)
_LONG_COMMANDS = re.compile(r"\\(neq|leqslant|leq|geqslant|geq|vert|mid|smallsetminus|backslash)(?![A-Za-z])")
_SHORTENED = {"neq": "\\ne ", "vert": "|", "mid": "|", "smallsetminus": "\\setminus ", "backslash": "\\setminus "}
_SHORTENED |= {"leqslant": "\\le ", "leq": "\\le ", "geqslant": "\\ge ", "geq": "\\ge "}
_REPLACED = (
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("\\%", "%"),
    ("{:}", ":"),
    ("\\colon", ":"),
    ("\u00a2", " cents"),
    ("\u2212", "-"),
    ("\u2013", "-"),
    ("\u00d7", "\\times "),
    ("\u00b7", "\\cdot "),
    ("\u03c0", "\\pi "),
    ("\u221e", "\\infty "),
    ("\u00b1", "\\pm "),
    ("\u2264", "\\le "),
    ("\u2265", "\\ge "),
    ("\u2260", "\\ne "),
    ("\u2261", "\\equiv "),
    ("\u222a", "\\cup "),
    ("\u2229", "\\cap "),
    ("\u2208", "\\in "),
    ("\u211d", "\\mathbb{R}"),
    ("\u00b2", "^2"),
    ("\u00b3", "^3"),
    ("\u00b0", "^\\circ"),
    ("\\degree", "^\\circ"),
    ("^{\\circ}", "^\\circ"),
    ("\\lbrace", "\\{"),
    ("\\rbrace", "\\}"),
    ("\\lvert", "|"),
    ("\\rvert", "|"),
    ("\\langle", "("),
    ("\\rangle", ")"),
)


@lru_cache(maxsize=16384)
def normalise(text: str) -> str:
    """One spelling for what LaTeX can write in several; case is kept except in answers made of words."""
    text = text.strip()
    if text.isdecimal() and text.isascii():
        return text
    text = _undressed(text)
    text = _RANGE.sub(" to ", _TEXT_MACRO.sub(lambda macro: _plain_text(macro, text), text))
    for old, new in _REPLACED:
        if old in text:
            text = text.replace(old, new)
    text = _LONG_COMMANDS.sub(lambda found: _SHORTENED[found[1]], _DOTS.sub(r"\\ldots ", text))
    text = _WORDS_IN_BRACKETS.sub(_noun_behind, _CURRENCY_FIRST.sub(_currency_last, text))
    text = _SPACE.sub(" ", _REMOVED.sub("", _THOUSANDS.sub("", text)))
    text = _SINGLE_BRACED.sub(r"\1\2", text)
    text = _SQRT.sub(r"\\sqrt{\1}", _FRAC_SECOND.sub(r"\1{\2}", _FRAC_FIRST.sub(r"\\frac{\1}", text)))
    text = _LOOSE_SPACE.sub("", text).rstrip(".,;:")
    if "]" in text and (text[0] == "]" or text[-1] == "["):
        text = _TURNED_INTERVAL.sub(_turned_round, text)
    text = _LABEL.sub("", text)
    if "_" in text and (based := _BASED.fullmatch(text)):
        text = _in_base(based) or text
    choice = _CHOICE.fullmatch(text)
    if choice:
        return choice[1] or choice[2]
    if _WORDS.fullmatch(text):
        # capitals alone are kept: AB may be a segment, and not the product that ab is
        return number_word(text.casefold()) or (text if text.isupper() else text.casefold())
    return text


def _undressed(text: str) -> str:
    """Without the dollar signs, Markdown or box around all of it, three deep at most."""
    for _ in range(3):
        if text.startswith("$") and text.endswith("$") and not text.endswith("\\$"):
            text = text.strip("$").strip()
        if (dressed := _DRESSED.fullmatch(text)) is None:
            break
        text = next(inner for inner in dressed.groups() if inner is not None).strip()
    return text


def _plain_text(macro: re.Match[str], text: str) -> str:
    r"""What \text{...} holds. A letter there is a unit where it stands behind a value; elsewhere it may be a variable."""
    before = text[: macro.start()].rstrip("\\ ,~;!")
    if before.endswith(("circ", "circ}", "\u00b0")):  # degrees Celsius are no coulombs
        return f" {macro[1]} "
    behind_a_value = before[-1:].isalnum() or before[-1:] in ("}", ")", "]")
    return f" {spelled_out(macro[1]) if behind_a_value else macro[1]} "


def _turned_round(interval: re.Match[str]) -> str:
    """]0,1[ is how some countries write (0,1)."""
    opened, inner, closed = interval.groups()
    return f"{'(' if opened == ']' else '['}{inner}{')' if closed == '[' else ']'}"


def _noun_behind(counted: re.Match[str]) -> str:
    """9 (apples) as 9 apples, 18 (yo-yos) as 18 yoyos: with its hyphen it would be a difference."""
    return f"{counted[1]} {counted[2].replace('-', '')}"


def _currency_last(amount: re.Match[str]) -> str:
    """$5 per hour as 5 dollars per hour, $2 million as 2 million dollars."""
    sign, currency, number, scale, words = amount.groups()
    return " ".join(filter(None, (f"{sign}{number}", scale, _CURRENCIES[currency], words)))


def _in_base(written: re.Match[str]) -> str | None:
    """(2f)_{sixteen} as 2F_{16}."""
    base = written[3] if written[3].isdecimal() else number_word(written[3])
    if base is None or not 2 <= int(base) <= 36:
        return None
    return f"{(written[1] or written[2]).upper()}_{base if len(base) == 1 else f'{{{base}}}'}"
