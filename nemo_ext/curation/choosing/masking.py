r"""Choose a problem's masked reference solution among a model's attempts (OpenMathInstruct-1, appendix B.5).

    reference   347 * 128 = 44416. 512 + 44416 = 44928. The answer is \boxed{44928}.
    masked      347 * 128 = M. 512 + M = N. The answer is \boxed{N}.

An attempt that still has the answer is out, as is one much shorter or longer than the reference; of the others the one with
the fewest digits wins, the first of equals. Where none is left, the published script takes the attempt with the fewest
digits of those that have the answer, and else the reference as it is: both give the answer away, so that callers count them.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from nemo_ext.grading.equal import equal
from nemo_ext.grading.extract import extract_answer

HIDDEN, ANSWER_FOUND, REFERENCE = "hidden", "answer_found", "reference"
"""How a masked solution was chosen."""
FALLBACKS = (ANSWER_FOUND, REFERENCE)
EMPTY, TRUNCATED, SAME, OTHER_LENGTH = "empty", "truncated", "same_as_reference", "other_length"
"""With ANSWER_FOUND, what is wrong with an attempt."""
LENGTH_TOLERANCE = 0.5


@dataclass
class Attempts:
    """What is kept of a problem's attempts: the best of each kind, as they come one by one."""

    problem: str
    reference: str
    expected_answer: str
    best: dict[str, tuple[int, str]] = field(default_factory=dict)
    """HIDDEN or ANSWER_FOUND -> (number of digits, text)."""

    def add(self, text: str, truncated: bool = False) -> str:
        """Take one attempt; returns HIDDEN, or what is wrong with it."""
        text = text.strip()
        kind = self._kind(text, truncated)
        if kind in (HIDDEN, ANSWER_FOUND):
            rank = (sum(map(str.isdigit, text)), text)
            if kind not in self.best or rank[0] < self.best[kind][0]:
                self.best[kind] = rank
        return kind

    def chosen(self, fallbacks: Collection[str] = FALLBACKS) -> tuple[str, str] | None:
        """(masked solution, how it was chosen); None where no attempt hides the answer and no fallback has a text."""
        texts = {kind: text for kind, (_, text) in self.best.items()} | {REFERENCE: self.reference}
        return next(
            ((texts[how], how) for how in (HIDDEN, *FALLBACKS) if how in texts and how in (HIDDEN, *fallbacks)), None
        )

    def _kind(self, text: str, truncated: bool) -> str:
        if not text:
            return EMPTY
        if truncated:
            return TRUNCATED
        if text == self.reference.strip():
            return SAME
        if answer_in(text, self.problem, self.expected_answer):
            return ANSWER_FOUND
        within = abs(len(text) - len(self.reference)) <= LENGTH_TOLERANCE * len(self.reference)
        return HIDDEN if within else OTHER_LENGTH


def answer_in(text: str, problem: str, expected_answer: str) -> bool:
    """Can the answer be found in a masked solution: does it state an equal one, or does the answer's own text stand in it
    (where the problem does not give that text anyway)?"""
    if equal(extract_answer(text), expected_answer):
        return True
    stands = re.compile(rf"(?<![\w.,^_\\]){re.escape(expected_answer.strip())}(?![\w^]|[.,]\d)")
    return stands.search(text) is not None and stands.search(problem) is None
