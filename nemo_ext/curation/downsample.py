"""Fewer rows: at random, or with as many solutions of each problem as the others have.

Both return row indices in ascending order, so that a file can be thinned in one pass, and depend only on their input
and the seed.
"""

import random
from collections import Counter
from collections.abc import Sequence


def random_sample(num_rows: int, num: int, seed: int) -> list[int]:
    """`num` of `num_rows` indices, each as likely; all of them when `num` is as large or larger."""
    _check(num)
    return sorted(random.Random(seed).sample(range(num_rows), min(num, num_rows)))


def fair(problem_of_row: Sequence[str], num: int, seed: int) -> list[int]:
    """OpenMathInstruct's fair downsampling: rounds over the problems, one solution of each per round, until `num`.

    Rows are shuffled first, so neither which solutions of a problem are taken nor which problems get the extra one of
    the last round depends on file order. With `num` rows or fewer available all are taken (the released code then
    wrote an empty file).
    """
    _check(num)
    order = list(range(len(problem_of_row)))
    random.Random(seed).shuffle(order)
    taken_before: Counter[str] = Counter()
    first_seen: dict[str, int] = {}
    ranked: list[tuple[int, int, int]] = []  # (round, problem's place in the round, row)
    for row in order:
        problem = problem_of_row[row]
        ranked.append((taken_before[problem], first_seen.setdefault(problem, len(first_seen)), row))
        taken_before[problem] += 1
    ranked.sort()
    return sorted(row for _, _, row in ranked[:num])


def _check(num: int) -> None:
    if num < 0:
        raise ValueError(f"downsampling: the number of rows to keep must be 0 or more, got {num}")
