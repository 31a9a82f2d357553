"""Which rows are taken: counts against a literal deal, seeds, caps, fixed diversity, matched pools."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.curation.choosing.downsample import capped, fair, fair_rank, matching, of_problems, random_rows

problems = st.lists(st.integers(0, 4), max_size=30).map(lambda values: np.array(values, np.uint64))


def _dealt(available: Counter[int], num: int) -> list[int]:
    """How many rows problems get when one is dealt to each per round, largest first."""
    left, taken = Counter(available), Counter(dict.fromkeys(available, 0))
    while sum(taken.values()) < min(num, sum(available.values())):
        for name in available:
            if left[name] and sum(taken.values()) < num:
                left[name] -= 1
                taken[name] += 1
    return sorted(taken.values())


@given(problems, st.integers(0, 40), st.integers(0, 5))
def test_fair_deals_rounds(of_row: np.ndarray, num: int, seed: int) -> None:
    chosen = fair(of_row, num, seed)
    assert chosen.sum() == min(num, len(of_row))
    assert (chosen == fair(of_row, num, seed)).all()
    available, taken = Counter(of_row.tolist()), Counter(of_row[chosen].tolist())
    rounds = min((taken[name] for name in available if taken[name] < available[name]), default=len(of_row))
    assert all(taken[name] in (min(available[name], rounds), min(available[name], rounds + 1)) for name in available)
    assert sum(taken.values()) == sum(_dealt(available, num))


@given(problems, st.integers(0, 5))
def test_fair_is_the_published_deal_of_the_shuffled_rows(of_row: np.ndarray, seed: int) -> None:
    """Problems in the order in which the shuffled list first has them; in round r each gives its r-th row."""
    shuffled = np.random.default_rng(seed).permutation(len(of_row)).tolist()
    rows_of: dict[int, list[int]] = {}
    for row in shuffled:
        rows_of.setdefault(int(of_row[row]), []).append(row)
    dealt = [rows[number] for number in range(len(of_row)) for rows in rows_of.values() if number < len(rows)]
    assert np.argsort(fair_rank(of_row, seed)).tolist() == dealt


@given(problems, st.integers(0, 5))
def test_smaller_fair_selections_are_part_of_larger_ones(of_row: np.ndarray, seed: int) -> None:
    assert sorted(fair_rank(of_row, seed).tolist()) == list(range(len(of_row)))
    for num in range(len(of_row)):
        assert (fair(of_row, num, seed) <= fair(of_row, num + 1, seed)).all()


def test_all_rows_are_taken_when_asked_for_all() -> None:
    """The released code then wrote an empty file."""
    rows = np.array([1, 1, 2], np.uint64)
    assert fair(rows, 3, seed=0).all() and fair(rows, 9, seed=0).all()
    assert fair(rows[:0], 3, seed=0).tolist() == []


def test_which_rows_are_taken_depends_on_the_seed_not_on_file_order() -> None:
    rows = np.repeat(np.array([1, 2], np.uint64), 50)
    assert len({tuple(np.flatnonzero(fair(rows, 2, seed))) for seed in range(20)}) > 10
    extra = Counter(int(rows[fair(rows, 1, seed)][0]) for seed in range(60))
    assert min(extra.values()) > 10, "the last round favours a problem"


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 3))
def test_random_rows(num_rows: int, num: int, seed: int) -> None:
    chosen = random_rows(num_rows, num, seed)
    assert chosen.sum() == min(num, num_rows) and (chosen == random_rows(num_rows, num, seed)).all()


def test_negative_sizes_are_refused() -> None:
    for call in (lambda: fair(np.zeros(1, np.uint64), -1, 0), lambda: random_rows(3, -1, 0)):
        with pytest.raises(ValueError, match="-1"):
            call()


@given(problems, st.dictionaries(st.integers(0, 4), st.integers(0, 4)))
def test_caps(groups: np.ndarray, caps: dict[int, int]) -> None:
    rank = np.arange(len(groups))[::-1]
    chosen = capped(groups, caps, rank)
    for group, count in Counter(groups.tolist()).items():
        mine = np.flatnonzero(groups == group)
        assert chosen[mine].sum() == min(count, caps.get(group, count))
        taken = rank[mine[chosen[mine]]]
        left = rank[mine[~chosen[mine]]]
        assert not len(taken) or not len(left) or taken.max() < left.min()


def test_fixed_rows_of_more_problems() -> None:
    rows = np.repeat(np.arange(40, dtype=np.uint64), 12)
    for num_problems in (1, 5, 10, 40):
        chosen = of_problems(rows, num_problems, 10, seed=1) if num_problems <= 10 else of_problems(rows, 40, 47, 1)
        counts = Counter(rows[chosen].tolist())
        assert len(counts) == num_problems and max(counts.values()) - min(counts.values()) <= 1
        assert sum(counts.values()) == (10 if num_problems <= 10 else 47)
    small, large = (set(rows[of_problems(rows, n, 12, seed=3)].tolist()) for n in (2, 6))
    assert small < large


def test_too_few_solutions_are_refused() -> None:
    rows = np.array([1, 1, 1, 2, 3], np.uint64)
    assert of_problems(rows, 1, 3, 0).tolist() == [True, True, True, False, False]
    with pytest.raises(ValueError, match="3 rows of 2 problems need 2 solutions of each, and 1 of 3 problems"):
        of_problems(rows, 2, 3, 0)
    with pytest.raises(ValueError, match="other numbers"):
        of_problems(rows, 3, 2, 0)


@given(problems, problems, st.none() | st.integers(0, 20), st.integers(0, 3))
def test_matched_pools_have_the_same_problems_as_often(
    a: np.ndarray, b: np.ndarray, num: int | None, seed: int
) -> None:
    left, right = matching(a, b, num, seed)
    assert Counter(a[left].tolist()) == Counter(b[right].tolist())
    most = sum((Counter(a.tolist()) & Counter(b.tolist())).values())
    assert left.sum() == (most if num is None else min(most, num))
    assert all((x == y).all() for x, y in zip((left, right), matching(a, b, num, seed), strict=True))
