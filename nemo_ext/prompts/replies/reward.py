"""A reward model's score of a solution.

    parse("reward:-3.6")                                                   ->  -3.6
    parse("helpfulness:2,correctness:1", weights={"helpfulness": 0.5})     ->  1.0

"reward:-3.6"                              a NIM with one attribute (Llama-3.1-Nemotron-70B-Reward)
"helpfulness:1.6,correctness:2.0,..."      a NIM of a SteerLM model (Nemotron-4-340B-Reward)
"[-3.6]"                                   numbers of vLLM's /pooling
"""

import json
import math
from collections.abc import Mapping

NEMOTRON_4 = {"helpfulness": 0.3, "correctness": 0.74, "coherence": 0.46, "complexity": 0.47, "verbosity": -0.33}
"""How Nemotron-4-340B-Reward's five attributes become one number (its model card)."""

LARGEST = 1e100
"""A larger number is not a score, and sums of it would overflow."""


def attributes(reply: str) -> dict[str, float] | None:
    """Name -> score; of a list of numbers their places, "0", "1", ... None: the reply is neither."""
    text = reply.strip()
    try:
        if text.startswith("["):
            found = {str(place): float(value) for place, value in enumerate(json.loads(text))}
        else:
            pairs = (part.rsplit(":", 1) for part in text.replace("\n", ",").split(",") if part.strip())
            found = {name.strip(): float(value) for name, value in pairs}
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return found if found and all(abs(value) < LARGEST for value in found.values()) else None


def parse(reply: str, *, weights: Mapping[str, float] | None = None) -> float | None:
    """The weighted sum of a reply's attributes, or the only one; None: it has none.

    Raises:
        ValueError: several attributes and no weights, or weights for others than it has: the settings fit another model.
    """
    found, weights = attributes(reply), weights or {}
    if found is None:
        return None
    if not weights and len(found) == 1:
        return next(iter(found.values()))
    if missing := [name for name in weights if name not in found] or ([] if weights else list(found)):
        raise ValueError(
            f"the reward model scores {', '.join(found)}; set weights for these, such as {{{next(iter(found))}: 1}}: "
            + (f"it has no {', '.join(missing)}" if weights else "there are several, and no weights")
        )
    return math.fsum(weight * found[name] for name, weight in weights.items())
