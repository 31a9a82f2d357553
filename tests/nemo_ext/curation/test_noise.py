"""Noise at exact rates, and never a solution paired with its own problem."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nemo_ext.curation.noise import mispair, noisy_rows


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 3))
def test_rates_are_exact_and_nested(num_rows: int, rate: float, seed: int) -> None:
    noisy = noisy_rows(num_rows, rate, seed)
    assert noisy.sum() == round(rate * num_rows)
    assert (noisy <= noisy_rows(num_rows, min(1.0, rate + 0.1), seed)).all()


@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.integers(0, 5))
def test_no_row_gets_a_solution_of_its_own_problem(values: list[int], seed: int) -> None:
    assume(2 * max(Counter(values).values()) <= len(values))
    problems = np.array(values, np.uint64)
    donors = mispair(problems, seed)
    assert sorted(donors.tolist()) == list(range(len(values))), "each solution is given once"
    assert (problems[donors] != problems).all()


def test_seeds_pair_differently() -> None:
    problems = np.arange(30, dtype=np.uint64)
    assert len({tuple(mispair(problems, seed)) for seed in range(5)}) == 5
    assert mispair(problems[:0], 0).tolist() == []


def test_what_cannot_be_exchanged_is_refused() -> None:
    with pytest.raises(ValueError, match="one problem has 3 of 5 rows"):
        mispair(np.array([1, 1, 1, 2, 3], np.uint64), 0)
