"""Best-fit-decreasing packing: speed, memory and efficiency, against packing in file order in the same run.

OpenMathInstruct-2's 13,972,791 samples at once, on one core, in a process of its own so that its peak memory shows.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from nemo_ext.megatron.data.packing import best_fit_decreasing
from tests.conftest import ROOT

CAPACITY, NUM, NUM_ALL = 4096, 200_000, 13_972_791
PROGRAM = """
import json, sys, time
from pathlib import Path
from nemo_ext.megatron.data.packing import assign_packs
from nemo_ext.megatron.data.pack_index import PackIndex
from tests.bench.bench_packing import CAPACITY, lengths

def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024

def reset():
    Path("/proc/self/clear_refs").write_text("5")
    return peak()

sizes = lengths(int(sys.argv[1]))
before = reset()
started = time.perf_counter()
packs = assign_packs(sizes, CAPACITY)
packed = time.perf_counter() - started
figures = {"assign_s": packed, "assign_mib": peak() - before, "packs": int(packs.max()) + 1, "tokens": int(sizes.sum())}
del packs
before = reset()
started = time.perf_counter()
PackIndex.build(sizes, CAPACITY, 1, 0, True)
print(json.dumps(figures | {"index_s": time.perf_counter() - started, "index_mib": peak() - before}))
"""


def lengths(count: int) -> np.ndarray:
    """Lognormal, mean about 400 tokens, like OpenMathInstruct-2's samples."""
    return np.random.default_rng(0).lognormal(5.85, 0.55, count).clip(16, CAPACITY).astype(np.int32)


def greedy(sizes: list[int]) -> int:
    """The peer: in file order, a new pack when the next sample does not fit. How many packs that makes."""
    packs, room = 1, CAPACITY
    for size in sizes:
        if size > room:
            packs += 1
            room = CAPACITY
        room -= size
    return packs


def run() -> Iterator[dict[str, Any]]:
    sizes = lengths(NUM)
    started = time.perf_counter()
    packs = len(best_fit_decreasing(sizes, CAPACITY))
    rate = NUM / (time.perf_counter() - started)
    ours, theirs = (int(sizes.sum()) / (count * CAPACITY) for count in (packs, greedy(sizes.tolist())))
    yield _row("packing_efficiency", round(ours, 5), "share", 0.998, round(theirs, 5), round(ours / theirs, 4))
    yield _row("packing_rate", round(rate), "samples/s")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(NUM_ALL)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    all_of_them = json.loads(done.stdout)
    share = all_of_them["tokens"] / (all_of_them["packs"] * CAPACITY)
    yield _row("packing_14m_time", round(all_of_them["assign_s"], 2), "s", 30)
    yield _row("packing_14m_memory", round(all_of_them["assign_mib"]), "MiB above the lengths")
    yield _row("packing_14m_efficiency", round(share, 5), "share", 0.998)
    yield _row("packing_14m_epoch_index_time", round(all_of_them["index_s"], 2), "s", 60)
    yield _row("packing_14m_epoch_index_memory", round(all_of_them["index_mib"]), "MiB above the lengths")


def _row(
    name: str,
    value: float,
    unit: str,
    target: float | None = None,
    peer: float | None = None,
    ratio: float | None = None,
) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "target": target, "peer": peer, "ratio": ratio}
