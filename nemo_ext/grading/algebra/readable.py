r"""Tell the answers that computer algebra reads whole from those that it would read in part.

math-verify reads a part of what it does not know and forgets the rest: of `3:4:5` the first number, of
`x \equiv 1 \pmod 4` the variable. An answer is handed on only when everything in it is mathematics that it knows.

    reads_whole(r"\int_0^1 x dx")  ->  True
    reads_whole(r"3\text{ boys}")  ->  False
"""

import re

from nemo_ext.grading.reading.syntax import FUNCTIONS, GREEK, MATRICES, tokens

_NAMES = """frac sqrt pi infty cdot times div int sum prod lim to lfloor rfloor lceil rceil cup cap setminus pm mp le ge lt
    gt in emptyset varnothing binom circ mathbb"""
_COMMANDS = {f"\\{name}" for name in (*FUNCTIONS, *GREEK, *_NAMES.split())} | {"\\{", "\\}", "\\\\"}
_OPERATORS = FUNCTIONS | {"sqrt"}
_SIGNS = frozenset(" +-*/^_=<>()[]{}|!.,&%")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{([a-z]+)\}")
_MATRICES = MATRICES | {"vmatrix", "Bmatrix"}
_A_WORD = re.compile(
    r"(?<![\\A-Za-z])(?!d[a-z](?![A-Za-z]))[A-Za-z]{2,}(?= )|(?<= )(?!d[a-z](?![A-Za-z]))[A-Za-z]{2,}"
)
_LETTER_NUMBER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{1,3} \d")
_LETTERS = 3  # a longer run of letters is a word and no product


def reads_whole(text: str) -> bool:
    """Is all of a normalised answer mathematics that computer algebra knows?"""
    if any(name not in _MATRICES for name in _ENVIRONMENT.findall(text)) or not text.isascii():
        return False
    text = re.sub(r"(\\begin\{array\})\{[lcr|]*\}", r"\1", text)
    text = _ENVIRONMENT.sub(" ", text)
    if _LETTER_NUMBER.search(text) or any(word[0] not in FUNCTIONS for word in _A_WORD.finditer(text)):
        return False
    return all(_is_known(token) for token in tokens(text))


def _is_known(token: str) -> bool:
    if token[0] == "\\":
        return token in _COMMANDS
    if token[0].isalpha():
        return len(token) <= _LETTERS or token in _OPERATORS
    return token[0].isdigit() or token in _SIGNS or token[0] == "."
