"""Grading: pairs per second and the slowest pair, ours against math-verify in the same run."""

import logging
import time
from collections.abc import Iterator
from typing import Any

from nemo_ext.grading.grader import Grader
from tests.bench.grading_pairs import NEEDS, Pair, asdiv_pairs, gsm8k_pairs, mixed_pairs

__all__ = ["NEEDS", "run"]

PEER_PAIRS = 400  # of the mixed pairs, evenly spaced: all of them take math-verify minutes
GSM8K_PEER_PAIRS = 1000
ASDIV_PEER_PAIRS = 200


def _ours(pairs: list[Pair], processes: int = 2) -> float:
    """Pairs a second, the start of the workers included."""
    start = time.perf_counter()
    with Grader(processes=processes) as grader:
        assert sum(1 for _ in grader.grade(pairs)) == len(pairs), "a verdict per pair"
    return len(pairs) / (time.perf_counter() - start)


def _alone(pairs: list[Pair]) -> float:
    """Seconds of the slowest pair graded by itself, workers started."""
    with Grader(processes=1) as grader:
        grader.verdict(r"\log 100", "2")
        slowest = 0.0
        for predicted, expected in pairs:
            start = time.perf_counter()
            grader.verdict(predicted, expected)
            slowest = max(slowest, time.perf_counter() - start)
    return slowest


def _math_verify(pairs: list[Pair]) -> float:
    """Pairs a second in one process; its own timers are off, which makes it faster."""
    from math_verify import parse, verify

    logging.disable(logging.WARNING)  # it warns on every call that its timers are off
    parse("$1$", parsing_timeout=0)
    start = time.perf_counter()
    for predicted, expected in pairs:
        gold = parse(f"${expected.strip('$')}$", parsing_timeout=0)
        verify(gold, parse(f"${(predicted or '').strip('$')}$", parsing_timeout=0), timeout_seconds=0)
    rate = len(pairs) / (time.perf_counter() - start)
    logging.disable(logging.NOTSET)
    return rate


def _figure(name: str, value: float, unit: str, target: float | None, peer: float | None) -> dict[str, Any]:
    ratio = None if peer is None else round(value / peer, 2)
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target, "peer": peer, "ratio": ratio}


def run() -> Iterator[dict[str, Any]]:
    mixed, gsm8k = mixed_pairs(10_000), gsm8k_pairs()
    peer = round(2 * _math_verify(mixed[:: len(mixed) // PEER_PAIRS]), 1)  # as if it scaled to two processes
    yield _figure("grading_mixed_10k_pairs", _ours(mixed), "pairs/s", 2500, peer)
    yield _figure("grading_slowest_pair", _alone(mixed), "s", 2, None)
    peer = round(2 * _math_verify(gsm8k[:: len(gsm8k) // GSM8K_PEER_PAIRS]), 1)
    yield _figure("grading_gsm8k_pairs", _ours(gsm8k), "pairs/s", None, peer)
    asdiv = asdiv_pairs()
    peer = round(_math_verify(asdiv[:: len(asdiv) // ASDIV_PEER_PAIRS]), 1)
    yield _figure("grading_asdiv_one_core", _ours(asdiv, processes=1), "pairs/s", 300, peer)
