"""Majority vote over 32 samples of 7,473 problems: the function, and the stage on files."""

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
from omegaconf import OmegaConf

from nemo_ext.aggregation.vote import vote
from nemo_ext.grading.extract import extract_answer
from nemo_ext.records.manifest import MANIFEST
from recipes.stages.grading import vote as stage

PROBLEMS, SAMPLES = 7473, 32
FORMS = ("{}", "{}.0", "\\frac{{2{}}}{{2}}", "${}$", "{} dollars", "x={}", "0{}")


def _rows() -> list[dict[str, Any]]:
    """Samples of a problem side by side; three in four agree, in several spellings."""
    rng = random.Random(0)
    rows = []
    for problem in range(PROBLEMS):
        right = rng.randrange(10_000)
        for _ in range(SAMPLES):
            answer = rng.choice(FORMS).format(right if rng.random() < 0.75 else rng.randrange(10_000))
            text = f"First we add the parts.\nThen we take away what was lost.\nSo it is \\boxed{{{answer}}}."
            rows.append({"id": str(problem), "problem": f"Problem {problem}?", "generation": text})
    return rows


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _figure(name: str, value: float, target: float | None, peer: float) -> dict[str, Any]:
    return {
        "name": name, "value": round(value, 3), "unit": "s", "target": target, "peer": round(peer, 3),
        "ratio": round(value / peer, 2),
    }  # fmt: skip


def _stage(source: Path, folder: Path, mode: str) -> None:
    content = {"uses": "vote", "name": "vote", "output_dir": str(folder), "input": str(source), "mode": mode}
    folder.mkdir()
    loaded = OmegaConf.merge(OmegaConf.structured(stage.Config), content)
    config = OmegaConf.to_object(loaded)
    assert isinstance(config, stage.Config)
    facts = stage.run(config)
    assert facts.rows_out == PROBLEMS * SAMPLES


def run() -> Iterator[dict[str, Any]]:
    """Peers: a collections.Counter loop over the same rows; for the stage one pass of orjson over the bytes."""
    rows = _rows()
    answers = [
        [extract_answer(row["generation"], "boxed") for row in rows[i : i + SAMPLES]]
        for i in range(0, len(rows), SAMPLES)
    ]

    def counters() -> None:
        for _, group in groupby(rows, key=lambda row: row["id"]):
            samples = [extract_answer(row["generation"], "boxed") for row in group]
            Counter(each for each in samples if each is not None).most_common(1)

    counting = _seconds(lambda: [Counter(each).most_common(1) for each in answers])
    yield _figure("vote_exact_32x7473", _seconds(lambda: [vote(each, "exact") for each in answers]), 0.7, counting)
    yield _figure(
        "vote_equivalent_32x7473", _seconds(lambda: [vote(each, "equivalent") for each in answers]), 5, counting
    )
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (Path(place) / MANIFEST).write_text("{}")  # so that it is read as an earlier stage's output
        parsing = _seconds(lambda: [orjson.loads(line) for line in source.open("rb")])
        looping = _seconds(counters)
        yield _figure("vote_exact_loop_over_rows", looping, None, parsing)
        for mode in ("exact", "equivalent"):
            taken = _seconds(lambda mode=mode: _stage(source, Path(place) / mode, mode))
            yield _figure(f"vote_stage_{mode}_32x7473", taken, None, parsing)
