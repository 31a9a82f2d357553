"""Choose rows: fairly over the problems, at random, of so many problems, at most so many of a source.

All work on arrays with a number per row, `problems[i]` telling rows of one problem from those of others, so that 14
million rows take a few hundred MB; all depend on their arguments and the seed alone, and give a boolean per row.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def random_rows(num_rows: int, num: int, seed: int) -> Array:
    """[num_rows] bool: `num` rows, each as likely; all of them when `num` is as large or larger."""
    _check(num)
    return np.argsort(np.random.default_rng(seed).permutation(num_rows), kind="stable") < num


def fair_rank(problems: Array, seed: int) -> Array:
    """[rows] int32: the place of each row when one solution of each problem is dealt per round (OpenMathInstruct-1).

    The `n` rows of the lowest ranks are the fair selection of n, so smaller selections are part of larger ones. Rows
    are shuffled first: neither which solutions of a problem come first nor which problems get the one extra of the
    last round depends on file order.
    """
    order = np.random.default_rng(seed).permutation(np.arange(len(problems), dtype=np.int32))
    shuffled = problems[order]
    by_problem = np.argsort(shuffled, kind="stable").astype(np.int32)
    rounds, first = _rounds(shuffled[by_problem])
    del shuffled
    # a round before the next, within a round by where the problem was first seen in the shuffled list
    dealt = np.argsort(rounds.astype(np.int64) * len(problems) + by_problem[first], kind="stable")
    del rounds, first
    rank = np.empty(len(problems), np.int32)
    rank[order[by_problem[dealt]]] = np.arange(len(problems), dtype=np.int32)
    return rank


def fair(problems: Array, num: int, seed: int) -> Array:
    """[rows] bool: of every problem min(its rows, r) or min(its rows, r + 1), `num` in all; all rows when there are no
    more (the released code then wrote an empty file).
    """
    _check(num)
    return fair_rank(problems, seed) < num


def capped(groups: Array, caps: Mapping[int, int], rank: Array) -> Array:
    """[rows] bool: of group g at most `caps[g]` rows, those of the lowest rank; groups without a cap are whole.

    Raises:
        ValueError: a cap below 0.
    """
    order = np.lexsort((rank, groups))
    place, _ = _rounds(groups[order])
    limit = np.full(len(groups), np.iinfo(np.int64).max)
    for group, cap in caps.items():
        _check(cap)
        limit[groups == group] = cap
    chosen = np.empty(len(groups), bool)
    chosen[order] = place < limit[order]
    return chosen


def of_problems(problems: Array, num_problems: int, num: int, seed: int) -> Array:
    """[rows] bool: exactly `num` rows of exactly `num_problems` problems, each with as many (but for one).

    The problems are drawn from those with enough solutions, so that sets of different diversity differ in nothing else
    (OpenMathInstruct-2: 256K pairs over 1K, 2K, 4K and 6.5K questions); of fewer problems are part of those of more
    wherever both can be had.

    Raises:
        ValueError: too few problems have that many solutions.
    """
    _check(num)
    each = -(-num // max(1, num_problems))
    names, counts = np.unique(problems, return_counts=True)
    rich = names[counts >= each]
    if num_problems < 1 or len(rich) < num_problems or num < num_problems:
        raise ValueError(
            f"{num} rows of {num_problems} problems need {each} solutions of each, and {len(rich)} of {len(names)} "
            "problems have as many. Ask for fewer rows, or for other numbers of problems"
        )
    drawn = np.random.default_rng(seed).permutation(rich)[:num_problems]
    inside = np.flatnonzero(np.isin(problems, drawn))
    chosen = np.zeros(len(problems), bool)
    chosen[inside[fair(problems[inside], num, seed)]] = True
    return chosen


def matching(first: Array, second: Array, num: int | None, seed: int) -> tuple[Array, Array]:
    """Rows of two pools with the same problems and as many solutions of each (OpenMathInstruct-2's comparison of teachers
    and of formats): ([rows of the first] bool, [rows of the second] bool).

    `num`: rows of each, chosen fairly; None: as many as match.
    """
    shares = {}
    for name, pool in (("first", first), ("second", second)):
        problems, counts = np.unique(pool, return_counts=True)
        shares[name] = dict(zip(problems.tolist(), counts.tolist(), strict=True))
    common = sorted(shares["first"].keys() & shares["second"].keys())
    pairs = np.repeat(np.array(common, first.dtype), [min(shares["first"][p], shares["second"][p]) for p in common])
    if num is not None:
        pairs = pairs[fair(pairs, num, seed)]
    names, wanted = np.unique(pairs, return_counts=True)
    return _of_each(first, names, wanted, seed), _of_each(second, names, wanted, seed + 1)


def _of_each(problems: Array, names: Array, wanted: Array, seed: int) -> Array:
    """[rows] bool: `wanted[i]` rows of problem `names[i]`, at random."""
    limit = np.zeros(len(problems), np.int64)
    if len(names):
        place = np.minimum(np.searchsorted(names, problems), len(names) - 1)
        limit = np.where(names[place] == problems, wanted[place], 0)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(problems)), problems))
    within, _ = _rounds(problems[order])
    chosen = np.empty(len(problems), bool)
    chosen[order] = within < limit[order]
    return chosen


def _rounds(ordered: Array) -> tuple[Array, Array]:
    """(how many equal ones come before each, where its first one is), for values in which equal ones are neighbours."""
    index = np.arange(len(ordered), dtype=np.int32)
    starts = np.ones(len(ordered), bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = np.maximum.accumulate(np.where(starts, index, np.int32(0)))
    return index - first, first


def _check(num: int) -> None:
    if num < 0:
        raise ValueError(f"downsampling: the number of rows to keep must be 0 or more, got {num}")
