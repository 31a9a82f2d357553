"""Scoring stored generations again: verdicts a second once a pair is known, and GSM8K with 64 samples of each problem."""

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_ext.evaluation.verdicts import GraderSet
from tests.bench.stage_runs import run_stage, write_stage_output
from tests.conftest import SHARED_DATA

SOLUTIONS = SHARED_DATA / "gsm8k_model_solutions.jsonl"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
SAMPLES, CORES = 64, 2
PEER_PAIRS = 1000  # of all pairs, evenly spaced: math-verify takes minutes for all of them
ROUNDS = 10
GRADERS = ["symbolic", "hendrycks", "integer"]


def rows() -> Iterator[dict[str, Any]]:
    """What four models wrote for GSM8K's test problems, over and over."""
    with SOLUTIONS.open() as handle:
        for i, row in enumerate(map(json.loads, handle)):
            expected = row["ground_truth"].rsplit("A: ", 1)[1].replace(",", "")
            for sample in range(SAMPLES):
                text = row[MODELS[sample % len(MODELS)]]["solution"].replace("\nA: ", "\n#### ")
                yield {
                    "benchmark": "gsm8k", "id": str(i), "problem": row["question"], "expected_answer": expected,
                    "sample": sample, "seed": sample, "generation": text, "finish_reason": "stop",
                }  # fmt: skip


def _cached(given: list[dict[str, Any]]) -> float:
    """Verdicts a second of one process, extraction included, when every pair has been seen."""
    with GraderSet(["symbolic"], "hash") as graders:
        graders.columns(given)
        start = time.perf_counter()
        for _ in range(ROUNDS):
            graders.columns(given)
        return ROUNDS * len(given) / (time.perf_counter() - start)


def _math_verify(given: list[dict[str, Any]]) -> float:
    """Pairs a second of one process; its own timers are off, which makes it faster."""
    from math_verify import parse, verify

    from nemo_ext.grading.extract import extract_answer

    logging.disable(logging.WARNING)  # it warns on every call that its timers are off
    parse("$1$", parsing_timeout=0)
    start = time.perf_counter()
    for row in given:
        gold = parse(f"${row['expected_answer']}$", parsing_timeout=0)
        answer = extract_answer(row["generation"], "hash") or ""
        verify(gold, parse(f"${answer.strip('$')}$", parsing_timeout=0), timeout_seconds=0)
    rate = len(given) / (time.perf_counter() - start)
    logging.disable(logging.NOTSET)
    return rate


def run() -> Iterator[dict[str, Any]]:
    """Peer: math-verify on the same answers in the same run, as other pipelines grade; nothing when the data is not there."""
    if not SOLUTIONS.is_file():
        return
    with tempfile.TemporaryDirectory() as place:
        given = list(rows())
        peer = _math_verify(given[:: len(given) // PEER_PAIRS])
        cached = _cached(given[: 4 * SAMPLES * 20])
        yield {
            "name": "rescore_cached_verdicts", "value": round(cached), "unit": "verdicts/s", "target": 20_000,
            "peer": round(peer, 1), "ratio": round(cached / peer, 2),
        }  # fmt: skip
        source = write_stage_output(Path(place) / "evaluate", given).parent
        keys = {"input": str(source), "extractor": "hash", "graders": GRADERS, "workers": CORES}
        done = run_stage(Path(place) / "rescore", "rescore", keys)
        assert done.manifest["rows_out"] == len(given), "a verdict for every sample"
        alone = len(given) / (CORES * peer)
        yield {
            "name": f"rescore_gsm8k_1319x{SAMPLES}", "value": round(done.seconds, 2), "unit": "s", "target": 60,
            "peer": round(alone, 1), "ratio": round(done.seconds / alone, 3),
        }  # fmt: skip
