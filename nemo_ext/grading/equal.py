r"""Compare a single pair of answers. The one place to ask about one.

    equal("0.5", r"\frac{1}{2}")  ->  True
    verdict("5", "500")           ->  Verdict(DIFFERENT, "numeric")

For many pairs use Grader or grade_pairs, which grade them side by side; here one worker is shared and closed at exit.
"""

import atexit
from functools import lru_cache
from importlib.metadata import version

from nemo_ext.grading.equality.rules import fast_verdict
from nemo_ext.grading.grader import Grader
from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Equality, Verdict

__all__ = [
    "DIFFERENT",
    "EQUAL",
    "UNDECIDED",
    "Equality",
    "Grader",
    "Verdict",
    "equal",
    "fast_verdict",
    "grader_version",
    "verdict",
]

# Raised when a rule changes a verdict; evaluation contracts carry it.
RULES_VERSION = 5


def grader_version() -> str:
    """What decided a verdict: our rules and the computer algebra behind them."""
    return f"rules-{RULES_VERSION} math-verify-{version('math-verify')} sympy-{version('sympy')}"


@lru_cache(maxsize=1)
def _shared_grader() -> Grader:
    grader = Grader(processes=1)
    atexit.register(grader.close)
    return grader


def verdict(predicted: str | None, expected: str) -> Verdict:
    """EQUAL, DIFFERENT, or UNDECIDED (out of time or memory), with the rule that decided."""
    found = fast_verdict(predicted, expected)
    return found if found is not None else _shared_grader().verdict(predicted, expected)


def equal(predicted: str | None, expected: str) -> bool:
    """True when the verdict is EQUAL; a missing or undecided answer is not equal."""
    return bool(verdict(predicted, expected))
