"""Decide whether a new problem is a benchmark's in other words, by a rule or by an LLM judge's replies.

As in OpenMathInstruct-2 a candidate comes from retrieval and is judged in both orders; one "same" is enough. The rule
says the same in either order.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nemo_ext.prompts.replies import verdict

_TOKEN = re.compile(r"\\?[A-Za-z]+|\d+(?:,\d{3})*(?:\.\d+)?|[+*/^=<>]|(?<=\w)\s?-\s?(?=\d)")
_NUMBER_OF_WORD = {
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "eleven": "11",
    "twelve": "12",
    "twice": "2",
    "double": "2",
    "triple": "3",
    "half": "0.5",
}
_FORMULA = re.compile(r"\$([^$]+)\$")
_ENDING = re.compile(r"(?<=\w{3})(?:ing|ed|es|s)$")
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the of to in on at by for from with and or as is are was were be been has have had do does did it its he
        she they them his her their him this that these those there then than so if what how when where which who many
        much find compute calculate determine evaluate each every all total altogether left now will can get gets give
        gives let value number answer problem following
        """,
    )
)
# Found on pairs of GSM8K and toy problems: how much of the wording must agree when the numbers do.
_MIN_OVERLAP = 0.6
_MIN_OVERLAP_FEW_NUMBERS = 0.8  # with a single number the wording carries the evidence
_MIN_OVERLAP_NO_NUMBERS = 0.9
_ENOUGH_NUMBERS = 3  # two problems with as many numbers and the answer in common by chance are rare


@dataclass(frozen=True)
class Features:
    """What of a problem the rule compares; numbers and words in the order of the text."""

    squeezed: str
    """The text in lower case without punctuation."""
    number_sequence: tuple[str, ...]
    numbers: tuple[str, ...]
    """Sorted: equal for a problem and its rewordings, whatever the words."""
    operators: tuple[str, ...]
    """Sorted."""
    word_sequence: tuple[str, ...]
    """Content words, without capitalised ones."""
    words: frozenset[str]
    formulas: frozenset[str]
    """Between dollar signs, bare numbers left out."""


def rule_judge(problem: str, benchmark_problem: str, same_answer: bool | None = None) -> bool:
    """Are these the same problem but for names, items and wording? See `same_problem`."""
    return same_problem(features(problem), features(benchmark_problem), same_answer)


def same_problem(left: Features, right: Features, same_answer: bool | None = None) -> bool:
    """The rule: cheap, strict rather than generous, and the same in both orders.

    Same when the normalised texts are equal, or when numbers (as a multiset, "three" being 3) and operators agree and
    enough content words do. Stop words and capitalised words, among them all names, do not count. `same_answer`, where
    both answers are known, settles more: another answer is another problem, and with three or more numbers in common
    the same answer makes it the same one if but a word or a formula is left of its wording. Word for word the same
    text with its numbers exchanged ("3 bags of 4", "4 bags of 3") is another problem.
    """
    if left.squeezed == right.squeezed:
        return True
    if same_answer is False or left.numbers != right.numbers or left.operators != right.operators:
        return False
    if (
        left.word_sequence == right.word_sequence
        and left.word_sequence
        and left.number_sequence != right.number_sequence
    ):
        return False
    if same_answer and len(left.numbers) >= _ENOUGH_NUMBERS and _related(left, right):
        return True
    count = len(left.numbers)
    needed = _MIN_OVERLAP if count > 1 else _MIN_OVERLAP_FEW_NUMBERS if count else _MIN_OVERLAP_NO_NUMBERS
    total = len(left.words) + len(right.words)
    return total > 0 and 2 * len(left.words & right.words) / total >= needed


def _related(left: Features, right: Features) -> bool:
    """A content word or a formula in common: the least a rewording keeps."""
    return bool(left.words & right.words) or bool(left.formulas & right.formulas)


def _squeeze(text: str) -> str:
    return " ".join(re.sub(r"[^\w+\-*/^=<>\\]+", " ", text.casefold()).split())


def features(text: str) -> Features:
    operators: list[str] = []
    words: list[str] = []
    ordered: list[str] = []
    for token in _TOKEN.findall(text):
        lowered = token.lower()
        if token[0].isdigit():
            ordered.append(_canonical(token))
        elif lowered in _NUMBER_OF_WORD:
            ordered.append(_NUMBER_OF_WORD[lowered])
        elif not (token[0].isalpha() or token[0] == "\\"):
            operators.append(token.strip())
        elif not token[0].isupper() and len(token) > 1 and lowered not in _STOP_WORDS:
            words.append(_ENDING.sub("", lowered))
    return Features(
        squeezed=_squeeze(text),
        number_sequence=tuple(ordered),
        numbers=tuple(sorted(ordered)),
        operators=tuple(sorted(operators)),
        word_sequence=tuple(words),
        words=frozenset(words),
        formulas=frozenset(formula for formula in _FORMULA.findall(text) if not formula.isdigit()),
    )


def _canonical(number: str) -> str:
    whole, _, decimals = number.replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")


def either_order(replies: Iterable[str]) -> bool | None:
    """What a judge asked in both orders says: True when one reply says so, False when all say no, and else None."""
    verdicts = [verdict.parse(reply) for reply in replies]
    return True if True in verdicts else None if None in verdicts else False
