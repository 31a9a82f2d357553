"""Pairs of a better and a worse sample of one problem.

pairs([1.0, 0.0, 1.0, 0.0], "first")         [(0, 1)]
pairs([0.2, 0.9, 0.5], "best_worst")         [(1, 0)]
pairs([1.0, 0.0, 1.0], "all")                [(0, 1), (2, 1)]
"""

import random
from collections.abc import Sequence

FIRST, BEST_WORST, ALL = "first", "best_worst", "all"
MODES = (FIRST, BEST_WORST, ALL)
Places = tuple[int, int]


def pairs(
    scores: Sequence[float], mode: str, min_margin: float = 0.0, limit: int | None = None, seed: str = ""
) -> list[Places]:
    """(place of the better, place of the worse) sample, by their scores.

    first: the first sample, in order, that is better than some other, with the first that is worse than it.
    best_worst: the highest score with the lowest, of equal ones the first.
    all: every two whose scores differ, in the order of the better, then of the worse.

    Args:
        min_margin: the least difference of the scores; they always differ.
        limit: at most so many, spread over the samples: drawn by `seed`, each next pair of the samples used least so far.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}; it may be one of {', '.join(MODES)}")
    places = range(len(scores))
    found = [(i, j) for i in places for j in places if scores[i] > scores[j] and scores[i] - scores[j] >= min_margin]
    if mode == FIRST:
        found = found[:1]
    elif mode == BEST_WORST:
        found = sorted(found, key=lambda pair: (-scores[pair[0]], scores[pair[1]], pair))[:1]
    return found if limit is None or len(found) <= limit else _spread(found, limit, seed)


def _spread(found: list[Places], limit: int, seed: str) -> list[Places]:
    order = random.Random(seed).sample(found, len(found))
    used: dict[tuple[str, int], int] = {}
    chosen: list[Places] = []
    while len(chosen) < limit:
        best = min(order, key=lambda pair: used.get(("better", pair[0]), 0) + used.get(("worse", pair[1]), 0))
        order.remove(best)
        chosen.append(best)
        for side, place in zip(("better", "worse"), best, strict=True):
            used[side, place] = used.get((side, place), 0) + 1
    return sorted(chosen)
