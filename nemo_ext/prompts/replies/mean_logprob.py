"""The likelihood of a text, as the mean of its tokens' log-probabilities.

parse("[-7.0, -0.25, -0.75]", skip=1)  ->  -0.5
"""

import json
import math


def parse(reply: str, *, skip: int = 0) -> float | None:
    """The mean of a list of log-probabilities without the first `skip`; None: nothing is left, or it is no such list."""
    try:
        values = [float(value) for value in json.loads(reply)[skip:]]
        return math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
