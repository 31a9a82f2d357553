"""Choose among a problem's solutions when some use code and some do not (OpenMathInstruct-1, section 3).

With c solutions with code of N in all:
    any_code        c > 0: those with code;  c = 0: those in words
    majority_code   those with code and, where c <= N // 2, those in words too
    majority_text   c > N // 2: those with code;  else those in words
    all             those with code
    none            every one
"""

from collections.abc import Callable, Sequence

_KEEP: dict[str, Callable[[int, int], tuple[bool, bool]]] = {
    # (c, N) -> keep those with code, keep those in words
    "any_code": lambda num_code, total: (True, num_code == 0),
    "majority_code": lambda num_code, total: (True, num_code <= total // 2),
    "majority_text": lambda num_code, total: (num_code > total // 2, num_code <= total // 2),
    "all": lambda num_code, total: (True, False),
    "none": lambda num_code, total: (True, True),
}
MODES = tuple(_KEEP)
COUNTING = ("majority_code", "majority_text")
"""Those that look at N."""


def select(uses_code: Sequence[bool], mode: str, total: int | None = None) -> list[str | None]:
    """The reason to drop each of a problem's solutions, `has_code` or `has_no_code`, or None.

    `total` is N where it is not the number of these solutions: the samples there were before filters took some.
    """
    keep_code, keep_text = _KEEP[mode](sum(uses_code), len(uses_code) if total is None else total)
    reasons = {True: None if keep_code else "has_code", False: None if keep_text else "has_no_code"}
    return [reasons[code] for code in uses_code]
