"""The final blend of OpenMathInstruct-1 by its published counts: 512,000 fair rows of GSM8K, 511,677 of MATH by any_code."""

from collections import Counter

import numpy as np

from nemo_ext.curation.choosing.code_selection import select
from nemo_ext.curation.choosing.downsample import fair

SOLVED = {"gsm8k": 7469, "math": 6978}
"""Problems of the training splits (7,473 and 7,500) with a correct solution."""


def _of_math() -> list[list[bool]]:
    """Whether each solution of each problem uses code: 478 problems have 40 without, the others 500,000 or so with."""
    with_code, without = SOLVED["math"] - 478, 478
    each, more = divmod(511_677 - without * 40, with_code)
    solved_by_code = [[True] * (each + (index < more)) + [False] * 40 for index in range(with_code)]
    return solved_by_code + [[False] * 40 for _ in range(without)]


def test_the_blend_has_1_023_677_rows() -> None:
    problems = np.repeat(np.arange(SOLVED["gsm8k"]), 140)  # 1.04 million, as were solved
    of_gsm8k = Counter(problems[fair(problems, 512_000, seed=0)].tolist())
    assert sum(of_gsm8k.values()) == 512_000 and len(of_gsm8k) == SOLVED["gsm8k"]
    assert Counter(of_gsm8k.values()) == {68: 3361, 69: 4108}, "68 rounds and 4,108 rows of the next"
    of_math = sum(reason is None for uses_code in _of_math() for reason in select(uses_code, "any_code"))
    assert of_math == 511_677
    assert sum(of_gsm8k.values()) + of_math == 1_023_677
