"""Data made worse on purpose, at exact rates: OpenMathInstruct-2's ablation of noise in the training set."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def noisy_rows(num_rows: int, rate: float, seed: int) -> Array:
    """[num_rows] bool with exactly round(rate * num_rows) true, drawn at random; a higher rate adds rows to them."""
    order = np.random.default_rng(seed).permutation(num_rows)
    chosen = np.zeros(num_rows, bool)
    chosen[order[: round(rate * num_rows)]] = True
    return chosen


def mispair(problems: Array, seed: int) -> Array:
    """[rows] int64: the row whose solution each row gets, every row's given once and none to a row of its own problem.

    Raises:
        ValueError: one problem has more than half of the rows, or there is only one row.
    """
    if len(problems) == 0:
        return np.zeros(0, np.int64)
    names, of_row, counts = np.unique(problems, return_inverse=True, return_counts=True)
    most = int(counts.max())
    if 2 * most > len(problems):
        raise ValueError(
            f"solutions cannot be exchanged between problems: one problem has {most} of {len(problems)} rows, more than "
            "half. Use more rows or another rate"
        )
    rng = np.random.default_rng(seed)
    # problems in random order, and within a problem its rows: every block of a problem is moved past itself
    order = np.lexsort((rng.permutation(len(problems)), rng.permutation(len(names))[of_row]))
    donors = np.empty(len(problems), np.int64)
    donors[order] = np.roll(order, -most)
    return donors
