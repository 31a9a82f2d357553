"""Statistics of scores: intervals, and exact tests of differences. Shares are in 0..1, intervals 95 %."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = NormalDist().inv_cdf(0.975)
RESAMPLES = 10_000
_DRAWN_AT_ONCE = 4_000_000  # counts in memory while resampling

Floats = NDArray[np.float64]


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion as (low, high). n = 0 gives (0, 1): nothing is known."""
    if not 0 <= successes <= n:
        raise ValueError(f"wilson: successes must lie in 0..n, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    denominator = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / denominator
    half = z / denominator * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n the interval ends exactly at 0 and 1; rounding must not say otherwise.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == n else min(1.0, centre + half)


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p of McNemar's test.

    b and c: problems that only the first and only the second model solved. Under "no difference" each of them is a
    fair coin; problems that both or neither solved carry no evidence.
    """
    if b < 0 or c < 0:
        raise ValueError(f"mcnemar: counts must be 0 or more, got {b} and {c}")
    n = b + c
    tail = ways = 1  # ways to choose i of n, for i = 0
    for i in range(min(b, c)):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased chance that one of k samples is correct, c of n samples being so (Chen et al. 2021, eq. 1)."""
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k: needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return float(pass_at_k_by_correct(n, k)[c])


def pass_at_k_by_correct(n: int, k: int) -> Floats:
    """pass@k for c = 0..n correct ones of n samples: n + 1 values.

    As 1 - the product of (1 - k / i) over i = n-c+1..n: no binomial of a large n is formed, so nothing overflows.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@k: needs 1 <= k <= n, got n={n}, k={k}")
    factors = np.maximum(0.0, 1 - k / np.arange(n, 0, -1))
    return np.concatenate([[0.0], 1 - np.cumprod(factors)])


def bootstrap(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of `values`, one per problem, when problems are drawn anew with replacement.

    Raises ValueError without values.
    """
    low, high = np.quantile(resampled_means(values, resamples, seed), [0.025, 0.975])
    return float(low), float(high)


def resampled_means(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The mean of each resample. Equal problems are drawn together: a resample is one multinomial draw over the distinct
    values, of which accuracies over k samples have k + 1."""
    given = np.asarray(values, dtype=np.float64)
    if given.size == 0 or not np.isfinite(given).all():
        raise ValueError(f"bootstrap: needs finite values, at least one; got {given.size}")
    distinct, counts = np.unique(given, return_counts=True)
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // distinct.size)
    shares = counts / given.size
    parts = [
        rng.multinomial(given.size, shares, size=min(at_once, resamples - start)) @ distinct
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(parts) / given.size


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """(low, high, two-sided p) of the mean of second - first, both over the same problems in the same order.

    Raises ValueError when the two are not of one length.
    """
    before, after = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if before.shape != after.shape:
        raise ValueError(f"paired_bootstrap: {before.size} and {after.size} problems; pair them first")
    means = resampled_means(after - before, resamples, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    # one is added to both counts so that p is never 0: 10,000 resamples cannot show less than 1 in 5,000
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return float(low), float(high), float(min(1.0, 2 * (tail + 1) / (resamples + 1)))


def paired_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The 95 % interval of (gained - lost) / n, the difference of two paired proportions.

    Wald's with half a problem added to each of the four counts (Agresti and Min 2005), which has a width where all
    problems are alike, too. It always holds the difference.
    """
    if min(gained, lost) < 0 or not 0 < n >= gained + lost:
        raise ValueError(f"paired_interval: needs 0 <= gained + lost <= n and n > 0, got {gained}, {lost} and {n}")
    change, size = gained - lost, n + 2
    half = Z95 * math.sqrt(gained + lost + 1 - change * change / size) / size
    return max(-1.0, min(change / n, change / size - half)), min(1.0, max(change / n, change / size + half))


def holm(ps: Sequence[float]) -> list[float]:
    """Each p adjusted for how many there are (Holm 1979): below alpha only where the chance of any false finding is."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation of one score per seed."""
    if not values:
        raise ValueError("spread: needs the score of at least one seed")
    array = np.asarray(values, dtype=np.float64)
    std = float(array.std(ddof=1)) if array.size > 1 else 0.0
    return {"mean": float(array.mean()), "std": std, "values": array.tolist()}


def standard_errors_apart(first: tuple[int, int], second: tuple[int, int]) -> float:
    """(second - first) over the standard error of that difference, each a (successes, n); 0 when both are certain.

    For published scores, of which only the totals are known; where verdicts per problem are, pair them: that is sharper.
    """
    for successes, n in (first, second):
        if not 0 <= successes <= n or n == 0:
            raise ValueError(f"standard_errors_apart: needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    (p, n), (q, m) = (first[0] / first[1], first[1]), (second[0] / second[1], second[1])
    error = math.sqrt(p * (1 - p) / n + q * (1 - q) / m)
    return 0.0 if error == 0 else (q - p) / error


def detectable_difference(
    n: int, accuracy: float = 0.5, discordant: float | None = None, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest true difference that a test at `alpha` finds in `power` of the cases, on n problems.

    discordant: share of problems that exactly one of two models solves; with it the models are compared problem by
    problem, without it as two independent samples at about `accuracy`.
    """
    if n < 1 or not 0 <= accuracy <= 1 or not 0 < alpha < 1 or not 0 < power < 1:
        raise ValueError(f"detectable_difference: got n={n}, accuracy={accuracy}, alpha={alpha}, power={power}")
    quantiles = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    variance = 2 * accuracy * (1 - accuracy) if discordant is None else discordant
    return min(1.0, quantiles * math.sqrt(variance / n))


def difference_in_words(
    first: str, second: str, first_correct: Sequence[bool], second_correct: Sequence[bool], alpha: float = 0.05
) -> str:
    """One sentence on two models that answered the same problems, in the same order.

    Raises ValueError when the two did not answer equally many.
    """
    n = len(first_correct)
    if n != len(second_correct) or n == 0:
        other = len(second_correct)
        raise ValueError(f"difference_in_words: {first} has {n} verdicts, {second} has {other}; pair them first")
    only_first = sum(a and not b for a, b in zip(first_correct, second_correct, strict=True))
    only_second = sum(b and not a for a, b in zip(first_correct, second_correct, strict=True))
    p = mcnemar(only_first, only_second)
    points = 100 * (only_second - only_first) / n
    change = "as many as" if points == 0 else f"{abs(points):.1f} points {'more' if points > 0 else 'fewer'} than"
    finding = "a difference" if p < alpha else "no evidence of a difference"
    return (
        f"{second} solves {sum(second_correct)} of {n}, {change} {first} ({sum(first_correct)}): {only_second} "
        f"problems gained and {only_first} lost, exact McNemar p = {p:.2g}, {finding} at {alpha:g}."
    )


def published_in_words(first: str, second: str, first_score: tuple[int, int], second_score: tuple[int, int]) -> str:
    """One sentence on two published scores, each (successes, n), whose problems cannot be paired."""
    apart = standard_errors_apart(first_score, second_score)
    (a, n), (b, m) = first_score, second_score
    finding = "a difference" if abs(apart) >= Z95 else "no evidence of a difference"
    size = 100 * detectable_difference(min(n, m), (a + b) / (n + m))
    return (
        f"{second} scores {100 * b / m:.1f} % of {m} and {first} {100 * a / n:.1f} % of {n}: {abs(apart):.2f} standard "
        f"errors apart, {finding} at 0.05; on so many problems one of {size:.1f} points would be found in 80 % of the cases."
    )
