import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from nemo_ext.evaluation.stats import (
    bootstrap,
    detectable_difference,
    difference_in_words,
    holm,
    mcnemar,
    paired_bootstrap,
    pass_at_k,
    pass_at_k_by_correct,
    published_in_words,
    resampled_means,
    spread,
    standard_errors_apart,
    wilson,
)


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


@settings(max_examples=60)
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_scipys_exact_test(b: int, c: int) -> None:
    scipys = scipy_stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(scipys, rel=1e-9)


@settings(max_examples=60)
@given(st.integers(1, 5000), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    scipys = scipy_stats.binomtest(successes, n).proportion_ci(0.95, "wilson")
    assert wilson(successes, n) == pytest.approx((scipys.low, scipys.high), abs=1e-12)


# Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3: the score interval without continuity correction
@pytest.mark.parametrize(
    ("r", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_is_the_published_table(r: int, n: int, low: float, high: float) -> None:
    assert wilson(r, n) == pytest.approx((low, high), abs=5.1e-5)


def test_mcnemar_takes_whole_benchmarks() -> None:
    assert mcnemar(2500, 2600) == pytest.approx(0.166, abs=0.01)


@given(st.integers(1, 7), st.data())
def test_pass_at_k_by_brute_force(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(subset) < c for subset in subsets) / len(subsets))


@settings(max_examples=40)
@given(st.integers(1, 600), st.data())
def test_pass_at_k_is_chens_formula_in_exact_fractions(n: int, data: st.DataObject) -> None:
    """1 - C(n - c, k) / C(n, k), for every c at once."""
    k = data.draw(st.integers(1, n))
    exact = [float(1 - Fraction(math.comb(n - c, k), math.comb(n, k))) for c in range(n + 1)]
    assert pass_at_k_by_correct(n, k) == pytest.approx(exact, abs=1e-12)


def test_pass_at_k_of_very_many_samples() -> None:
    assert pass_at_k(1_000_000, 1, 500_000) == pytest.approx(0.5)
    assert pass_at_k(1_000_000, 700_000, 400_000) == 1.0
    assert pass_at_k(10, 0, 10) == 0.0


def test_bootstrap_covers_what_it_should() -> None:
    """Near the normal interval for 0/1 values; the same seed gives the same bits, and equal values no width."""
    values = np.array([1] * 300 + [0] * 200)
    low, high = bootstrap(values)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 500)
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.004)
    assert bootstrap(values) == (low, high) == bootstrap(values[::-1]) and bootstrap(values, seed=1) != (low, high)
    assert bootstrap([0.25] * 9) == (0.25, 0.25)


def test_bootstrap_means_have_the_variance_of_drawing_with_replacement() -> None:
    values = np.arange(30) / 29
    means = resampled_means(values, 40_000, seed=3)
    assert means.shape == (40_000,)
    assert means.mean() == pytest.approx(values.mean(), abs=0.002)
    assert means.std() == pytest.approx(values.std() / math.sqrt(30), rel=0.02)
    many = np.random.default_rng(0).random(5000)  # all different, drawn a part at a time
    assert resampled_means(many, 2000).std() == pytest.approx(many.std() / math.sqrt(5000), rel=0.1)


def test_paired_bootstrap_sees_what_an_unpaired_one_cannot() -> None:
    hard = np.repeat([0.0, 1.0], 250)
    first, second = hard.copy(), hard.copy()
    second[:12] = 1.0  # gains twelve problems, loses none
    low, high, p = paired_bootstrap(first, second)
    assert low > 0 and p < 0.01 and low < 12 / 500 < high
    assert paired_bootstrap(second, first)[:2] == pytest.approx((-high, -low), abs=0.003)
    assert paired_bootstrap(first, first) == (0.0, 0.0, 1.0)
    assert paired_bootstrap(np.zeros(40), np.ones(40))[2] == pytest.approx(2 / 10_001), "never 0"


def test_published_scores_of_500_problems() -> None:
    """The scores of a guide that were read as better and as the same: 311, 307 and 251 of 500."""
    assert standard_errors_apart((307, 500), (311, 500)) == pytest.approx(0.26, abs=0.005)
    said = published_in_words("reference", "ours", (307, 500), (311, 500))
    assert "ours scores 62.2 % of 500 and reference 61.4 % of 500: 0.26 standard errors apart" in said
    assert "no evidence of a difference" in said and "one of 8.6 points would be found" in said
    assert "apart, a difference at 0.05" in published_in_words("base", "tuned", (251, 500), (311, 500))
    assert standard_errors_apart((5, 5), (7, 7)) == 0.0


def test_detectable_difference() -> None:
    """Textbook: two proportions near a half, 80 % power at 5 %: 16 p (1 - p) / d^2 problems each, by Lehr's rule."""
    for n in (100, 500, 1319, 5000):
        assert detectable_difference(n) == pytest.approx(math.sqrt(16 * 0.25 / n), rel=0.02)
    assert detectable_difference(500, discordant=0.1) == pytest.approx(2.8016 * math.sqrt(0.1 / 500), rel=1e-4)
    assert detectable_difference(1) == 1.0


def test_holm_is_the_step_down_of_bonferroni() -> None:
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")"""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_spread_over_seeds() -> None:
    assert spread([0.5, 0.6, 0.7]) == {
        "mean": pytest.approx(0.6),
        "std": pytest.approx(0.1),
        "values": [0.5, 0.6, 0.7],
    }
    assert spread([0.5])["std"] == 0.0


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
        lambda: pass_at_k_by_correct(3, 0),
        lambda: bootstrap([]),
        lambda: bootstrap([1.0, float("nan")]),
        lambda: paired_bootstrap([1.0], [1.0, 0.0]),
        lambda: standard_errors_apart((1, 0), (1, 2)),
        lambda: detectable_difference(0),
        lambda: spread([]),
    ],
)
def test_impossible_counts_are_refused(call) -> None:
    with pytest.raises(ValueError):
        call()
