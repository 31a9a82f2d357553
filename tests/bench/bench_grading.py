"""Grading: pairs per second on OpenAI's GSM8K model solutions, our path against math-verify in the same run."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_ext.grading.equal import Grader

DATA = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_model_solutions.jsonl"
MATH_VERIFY_PAIRS = 1000  # of the 5,276, evenly spaced: all of them would take several seconds more


def _pairs() -> list[tuple[str | None, str]]:
    def answer(text: str) -> str | None:
        return text.rsplit("A:", 1)[1].strip() if "A:" in text else None

    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    return [
        (answer(solution["solution"]), answer(row["ground_truth"]) or "")
        for row in rows
        for solution in row.values()
        if isinstance(solution, dict)
    ]


def _ours(pairs: list[tuple[str | None, str]]) -> float:
    start = time.perf_counter()
    with Grader() as grader:
        assert sum(1 for _ in grader.grade(pairs)) == len(pairs), "a verdict per pair"
    return len(pairs) / (time.perf_counter() - start)


def _math_verify(pairs: list[tuple[str | None, str]]) -> float:
    from math_verify import parse, verify

    logging.disable(logging.WARNING)  # it warns on every call that its timers are off
    parse("$1$", parsing_timeout=0)
    start = time.perf_counter()
    for predicted, expected in pairs:
        gold = parse(f"${expected}$", parsing_timeout=0)
        verify(gold, parse(f"${predicted or ''}$", parsing_timeout=0), timeout_seconds=0)
    rate = len(pairs) / (time.perf_counter() - start)
    logging.disable(logging.NOTSET)
    return rate


def run() -> Iterator[dict[str, Any]]:
    """One figure; nothing when the data is not there."""
    if not DATA.exists():
        return
    pairs = _pairs()
    ours = _ours(pairs)
    peer = _math_verify(pairs[:: len(pairs) // MATH_VERIFY_PAIRS])
    yield {
        "name": "grading_gsm8k_pairs",
        "value": round(ours, 1),
        "unit": "pairs/s",
        "target": None,
        "peer": round(peer, 1),
        "ratio": round(ours / peer, 2),
    }
