"""Is a new problem one of a benchmark's in other words? By a rule, or by an LLM judge's replies.

As in OpenMathInstruct-2 a candidate comes from retrieval and is judged in both orders; one "same" is enough.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nemo_ext.grading.judge import parse_verdict

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
class _Features:
    """What of a problem is compared; numbers and words in the order of the text."""

    number_sequence: tuple[str, ...]
    operators: Counter[str]
    word_sequence: tuple[str, ...]
    """Content words, without capitalised ones."""
    formulas: frozenset[str]
    """Between dollar signs, bare numbers left out."""

    @property
    def numbers(self) -> Counter[str]:
        return Counter(self.number_sequence)

    @property
    def words(self) -> frozenset[str]:
        return frozenset(self.word_sequence)


def rule_judge(problem: str, benchmark_problem: str, same_answer: bool | None = None) -> bool:
    """Are these the same problem but for names, items and wording? Cheap, and strict rather than generous.

    Same when the normalised texts are equal, or when numbers (as a multiset, "three" being 3) and operators agree and
    enough content words do. Stop words and capitalised words, among them all names, do not count. `same_answer`, where
    both answers are known, settles more: another answer is another problem, and with three or more numbers in common
    the same answer makes it the same one if but a word or a formula is left of its wording. Word for word the same
    text with its numbers exchanged ("3 bags of 4", "4 bags of 3") is another problem.
    """
    if _squeeze(problem) == _squeeze(benchmark_problem):
        return True
    left, right = _features(problem), _features(benchmark_problem)
    if same_answer is False or left.numbers != right.numbers or left.operators != right.operators:
        return False
    if (
        left.word_sequence == right.word_sequence
        and left.word_sequence
        and left.number_sequence != right.number_sequence
    ):
        return False
    if same_answer and left.numbers.total() >= _ENOUGH_NUMBERS and _related(left, right):
        return True
    count = left.numbers.total()
    needed = _MIN_OVERLAP if count > 1 else _MIN_OVERLAP_FEW_NUMBERS if count else _MIN_OVERLAP_NO_NUMBERS
    total = len(left.words) + len(right.words)
    return total > 0 and 2 * len(left.words & right.words) / total >= needed


def _related(left: _Features, right: _Features) -> bool:
    """A content word or a formula in common: the least a rewording keeps."""
    return bool(left.words & right.words) or bool(left.formulas & right.formulas)


def _squeeze(text: str) -> str:
    return " ".join(re.sub(r"[^\w+\-*/^=<>\\]+", " ", text.casefold()).split())


def _features(text: str) -> _Features:
    operators: Counter[str] = Counter()
    words: list[str] = []
    ordered: list[str] = []
    for token in _TOKEN.findall(text):
        lowered = token.lower()
        if token[0].isdigit():
            ordered.append(_canonical(token))
        elif lowered in _NUMBER_OF_WORD:
            ordered.append(_NUMBER_OF_WORD[lowered])
        elif not (token[0].isalpha() or token[0] == "\\"):
            operators[token.strip()] += 1
        elif not token[0].isupper() and len(token) > 1 and lowered not in _STOP_WORDS:
            words.append(_ENDING.sub("", lowered))
    formulas = frozenset(formula for formula in _FORMULA.findall(text) if not formula.isdigit())
    return _Features(tuple(ordered), operators, tuple(words), formulas)


def _canonical(number: str) -> str:
    whole, _, decimals = number.replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{decimals}" if decimals else "")


def number_signature(text: str) -> tuple[str, ...]:
    """The numbers of a text, sorted: equal for a problem and its rewordings, whatever the words."""
    return tuple(sorted(_features(text).number_sequence))


@dataclass(frozen=True)
class Candidate:
    """A benchmark problem that retrieval found."""

    benchmark: str
    benchmark_id: str
    problem: str
    score: float


@dataclass(frozen=True)
class Evidence:
    """Why a problem was called contaminated: what it is like, how much, and what the judge said to which order."""

    candidate: Candidate
    order: str  # "problem_first" or "benchmark_first"
    reply: str


def contaminated(
    problem: str, candidates: Iterable[Candidate], judge: Callable[[str, str], bool | str]
) -> Evidence | None:
    """The first candidate that `judge` calls the same problem in either order, or None.

    `judge(first, second)` gives a bool (rule_judge) or a model's reply, which parse_verdict reads.
    """
    for candidate in candidates:
        for order, first, second in (
            ("problem_first", problem, candidate.problem),
            ("benchmark_first", candidate.problem, problem),
        ):
            reply = judge(first, second)
            same = reply if isinstance(reply, bool) else parse_verdict(reply)
            if same:
                return Evidence(candidate, order, str(reply))
    return None
