"""The majority answer of several solutions to one problem."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from nemo_ext.grading.equal import verdict
from nemo_ext.grading.equality.rules import plain_value
from nemo_ext.grading.verdict import DIFFERENT, Verdict

MODES = ("exact", "equivalent")


@dataclass(frozen=True)
class Vote:
    """`votes` of `total` solutions gave `answer`, spelled as one of `spellings`; total counts those without an answer too.

    share: of all the votes, or, where they were weighted, of the weight of all.
    """

    answer: str | None
    votes: int
    total: int
    share: float = 0.0
    spellings: frozenset[str] = frozenset()


def vote(
    answers: Sequence[str | None],
    mode: Literal["exact", "equivalent"] = "exact",
    same: Callable[[str, str], object] | None = None,
    weights: Sequence[float] | None = None,
) -> Vote:
    """Majority answer; None is not a vote.

    exact: spellings are compared as strings, and of two with as many votes the one seen first wins, as in NeMo-Skills and
    OpenMathInstruct-2. equivalent: spellings that `same` calls equal are counted together under the most frequent of them;
    the order of the answers makes no difference. `same(spelling, representative)` may be a Grader's `verdict`, as
    it is by default. With `weights`, one a solution, the largest sum wins.

    Raises:
        ValueError: an unknown mode; a weight that is negative or not finite, or not one weight per answer.
    """
    if mode not in MODES:
        raise ValueError(f"vote: got mode {mode!r}, choose one of {', '.join(MODES)}")
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Vote(None, 0, len(answers))
    sizes: dict[str, float] = dict(counts) if weights is None else _weigh(answers, weights)
    if mode == "exact":
        answer = max(sizes, key=sizes.__getitem__)
        classes = {answer: [answer]}
    else:
        classes = equal_spellings(counts, sizes, same)
        answer = min(classes, key=lambda each: (-_size(classes[each], sizes), _rank(each, sizes)))
    members = classes[answer]
    total = float(len(answers)) if weights is None else math.fsum(weights)
    share = _size(members, sizes) / total if total else 0.0
    return Vote(answer, sum(counts[each] for each in members), len(answers), share, frozenset(members))


def _weigh(answers: Sequence[str | None], weights: Sequence[float]) -> dict[str, float]:
    """Spelling -> weight, in the order first seen. Sums are exactly rounded, so no order of the answers changes them."""
    if len(weights) != len(answers) or any(not math.isfinite(weight) or weight < 0 for weight in weights):
        raise ValueError(f"vote: weights must be finite, not negative and one per answer; got {list(weights)[:5]}")
    each: dict[str, list[float]] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            each.setdefault(answer, []).append(weight)
    return {answer: math.fsum(found) for answer, found in each.items()}


def _size(members: Sequence[str], sizes: dict[str, float]) -> float:
    return math.fsum(sizes[each] for each in members)


def _rank(spelling: str, sizes: Mapping[str, float]) -> tuple[float, int, str]:
    """The spelling with more votes first, then the shorter one, then by the alphabet."""
    return -sizes[spelling], len(spelling), spelling


def equal_spellings(
    counts: Counter[str], sizes: Mapping[str, float], same: Callable[[str, str], object] | None = None
) -> dict[str, list[str]]:
    """Representative -> spellings equal to it, itself the one with the largest size.

    Classes never overlap, and no two spellings of one are known to differ: 3 cm and 3 km, each of which a bare 3 may stand
    for, are not counted together. `same`: as `vote` has it.
    """
    ask = same or verdict
    classes: dict[str, list[str]] = {}
    with_value: dict[Fraction | int, str] = {}  # most answers are plain numbers, which need no comparison
    for spelling in sorted(counts, key=lambda each: _rank(each, sizes)):
        value = plain_value(spelling) if same is None else None
        match = with_value.get(value) if value is not None else None
        if match is None:
            plain = set(with_value.values()) if value is not None else ()
            asked = (chosen for chosen in classes if chosen not in plain)
            match = next((chosen for chosen in asked if _joins(spelling, classes[chosen], ask)), None)
        classes.setdefault(spelling if match is None else match, []).append(spelling)
        if value is not None:
            with_value.setdefault(value, spelling if match is None else match)
    return classes


def _joins(spelling: str, members: Sequence[str], ask: Callable[[str, str], object]) -> bool:
    """Equal to the representative, the first of the members, and not known to differ from another."""
    if not ask(spelling, members[0]):
        return False
    others = (ask(spelling, member) for member in members[1:])
    return not any(isinstance(found, Verdict) and found.equality is DIFFERENT for found in others)
