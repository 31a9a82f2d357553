import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.evaluation.stats import difference_in_words, mcnemar, pass_at_k, wilson


def test_wilson_known_values() -> None:
    # R: prop.test(251, 500, correct = FALSE)$conf.int with z = 1.96
    assert wilson(251, 500) == pytest.approx((0.4583, 0.5456), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 2000), st.data())
def test_wilson_holds_the_share_and_mirrors(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("b", "c", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (10, 2, 0.03857), (3, 3, 1.0)])
def test_mcnemar_known_values(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, abs=1e-5)
    assert mcnemar(c, b) == mcnemar(b, c)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial(b: int, c: int) -> None:
    n = b + c
    brute = sum(math.comb(n, k) * 0.5**n for k in range(n + 1) if abs(k - n / 2) >= abs(b - n / 2))
    assert mcnemar(b, c) == pytest.approx(brute)


def test_mcnemar_takes_whole_benchmarks() -> None:
    assert mcnemar(2500, 2600) == pytest.approx(0.166, abs=0.01)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_by_brute_force(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(subset) < c for subset in subsets) / len(subsets))


def test_difference_in_words() -> None:
    before = [True] * 2 + [False] * 18
    after = [True] * 12 + [False] * 8
    text = difference_in_words("base", "tuned", before, after)
    assert "tuned solves 12 of 20, 50.0 points more than base (2)" in text
    assert "10 problems gained and 0 lost" in text
    assert "p = 0.002, a difference at 0.05" in text
    assert "as many as base" in difference_in_words("base", "tuned", before, before)
    assert "no evidence of a difference" in difference_in_words("base", "tuned", before, before)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(3, 2),
        lambda: mcnemar(-1, 0),
        lambda: pass_at_k(3, 1, 4),
        lambda: pass_at_k(3, 4, 1),
        lambda: difference_in_words("a", "b", [True], [True, False]),
        lambda: difference_in_words("a", "b", [], []),
    ],
)
def test_impossible_counts_are_refused(call) -> None:
    with pytest.raises(ValueError):
        call()
