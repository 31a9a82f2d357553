"""The majority answer of several solutions to one problem."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nemo_ext.grading.equal import equal

MODES = ("exact", "equivalent")


@dataclass(frozen=True)
class Vote:
    """`votes` of `total` solutions gave `answer`; total counts those without an answer too."""

    answer: str | None
    votes: int
    total: int


def vote(
    answers: Sequence[str | None],
    mode: Literal["exact", "equivalent"] = "exact",
    same: Callable[[str, str], object] = equal,
) -> Vote:
    """Majority answer; None is no vote, and of two answers with as many votes the one seen first wins.

    exact: spellings are compared as strings, as in NeMo-Skills and OpenMathInstruct-2. equivalent: spellings that
    `same` calls equal are counted together under the most frequent of them. `same(spelling, representative)` may be a
    Grader's `verdict`. Raises ValueError for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"vote: got mode {mode!r}, choose one of {', '.join(MODES)}")
    counts = Counter(answer for answer in answers if answer is not None)
    if mode == "equivalent":
        counts = _merge(counts, same)
    if not counts:
        return Vote(None, 0, len(answers))
    answer, votes = counts.most_common(1)[0]
    return Vote(answer, votes, len(answers))


def _merge(counts: Counter[str], same: Callable[[str, str], object]) -> Counter[str]:
    """Count equivalent spellings together.

    Spellings are taken by frequency, so a class is represented by its most frequent one and equality is only asked
    against representatives. Classes keep the order in which their first member was seen, which breaks ties.
    """
    representative: dict[str, str] = {}
    chosen: list[str] = []
    for spelling, _ in counts.most_common():
        match = next((other for other in chosen if same(spelling, other)), None)
        representative[spelling] = match if match is not None else spelling
        if match is None:
            chosen.append(spelling)
    merged: Counter[str] = Counter()
    for spelling, count in counts.items():
        merged[representative[spelling]] += count
    return merged
