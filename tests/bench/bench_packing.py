"""Best-fit-decreasing packing: samples per second and efficiency, against first-fit in order in the same run."""

import random
import time
from collections.abc import Iterator
from typing import Any

from nemo_ext.megatron.packing import best_fit_decreasing, efficiency

CAPACITY, NUM = 4096, 200_000


def lengths() -> list[int]:
    """Lognormal, mean about 400 tokens, like OpenMathInstruct-2's samples."""
    rng = random.Random(0)
    return [min(CAPACITY, max(16, int(rng.lognormvariate(5.85, 0.55)))) for _ in range(NUM)]


def greedy(sizes: list[int]) -> list[list[int]]:
    """The peer: in file order, a new pack when the next sample does not fit."""
    packs: list[list[int]] = [[]]
    room = CAPACITY
    for index, size in enumerate(sizes):
        if size > room:
            packs.append([])
            room = CAPACITY
        packs[-1].append(index)
        room -= size
    return packs


def run() -> Iterator[dict[str, Any]]:
    sizes = lengths()
    started = time.perf_counter()
    packs = best_fit_decreasing(sizes, CAPACITY)
    rate = NUM / (time.perf_counter() - started)
    ours, theirs = efficiency(sizes, packs, CAPACITY), efficiency(sizes, greedy(sizes), CAPACITY)
    yield {
        "name": "packing_efficiency",
        "value": round(ours, 5),
        "unit": "share",
        "target": 0.998,
        "peer": round(theirs, 5),
        "ratio": round(ours / theirs, 4),
    }
    yield {
        "name": "packing_rate",
        "value": round(rate),
        "unit": "samples/s",
        "target": None,
        "peer": None,
        "ratio": None,
    }
