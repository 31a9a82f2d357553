"""How sure a score is, and whether two differ: intervals and exact tests, standard library only."""

import math
from collections.abc import Sequence


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a proportion as (low, high); z = 1.96 is 95 %. n = 0 gives (0, 1): nothing is known."""
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
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased chance that one of k samples is correct, c of n samples being so (Chen et al. 2021, eq. 1)."""
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k: needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


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
