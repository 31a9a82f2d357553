"""decontaminate with two workers: 600,000 different problems against 6,400 test problems, TF-IDF, 10- and 30-grams, the rule.

The problems are made here from the sentences of real ones (GSM8K's training split, half of MATH-500), with other numbers
and names; a known number are copies of test problems, planted so that one method each should find them. Seconds and
memory are those of the whole command, from its start to its manifest.

Peers, in the same run: the plain way, scikit-learn's TfidfVectorizer and dense similarities of 10,000 problems at a time,
on a part of the problems; and one pass of orjson over the input.

`make bench ONLY=decontaminate` takes 600,000 problems; `python -m tests.bench.bench_decontaminate 20000` as many as it says.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
from sklearn.feature_extraction.text import TfidfVectorizer

from nemo_ext.curation.contamination.ngrams import words
from nemo_ext.rows.row import Row, dumps, read_rows
from tests.conftest import ROOT, SHARED_DATA

NUM_PROBLEMS, WORKERS, PEER_PROBLEMS, PLANTED = 600_000, 2, 20_000, 300
SECONDS_TARGET, GIB_TARGET = 300, 3
NUM_MADE_TESTS = 4761  # with the real ones 6,400; the other half of MATH-500 goes into the problems
NAMES = re.findall(
    r"\w+", "Ava Ben Cleo Dan Eva Finn Gia Hugo Ida Jon Kim Leo Mia Noa Oli Pia Quin Rob Sue Tom Uma Zoe"
)
SENTENCE, NUMBER, NAME = re.compile(r"(?<=[.?!])\s+"), re.compile(r"\d+"), re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b")


def _texts(name: str) -> list[str]:
    return [row.get("question") or row["problem"] for row in read_rows(SHARED_DATA / name)]


def _made(draw: random.Random, texts: list[str]) -> Iterator[str]:
    """Problems of sentences from two, with other numbers and names."""
    split = [SENTENCE.split(text) for text in texts]
    while True:
        first, second = draw.choices(split, k=2)
        body = [*first[: draw.randrange(1, max(2, len(first)))], *second[-draw.randrange(1, 3) :]]
        text = NUMBER.sub(lambda match: str(draw.randrange(2, 10 ** len(match[0]) + 2)), " ".join(body))
        yield NAME.sub(lambda _: draw.choice(NAMES), text)


def tests() -> dict[str, list[str]]:
    math = _texts("math500_test.jsonl")[:250]
    made = _made(random.Random(1), math)
    real = {name: _texts(f"{name}_test.jsonl") for name in ("gsm8k", "amc23", "aime24")}
    return real | {"math": [*math, *dict.fromkeys(next(made) for _ in range(NUM_MADE_TESTS))]}


def _exact(text: str, draw: random.Random, other: str) -> str:
    return "  ".join(text.upper().split()) + " "


def _run(length: int, text: str, draw: random.Random, other: str) -> str:
    """Another problem with so many words of this one in it."""
    whole = [word for word in text.split() if words(word)]
    start = draw.randrange(len(whole) - length)
    return f"{other} {' '.join(whole[start : start + length])} {draw.choice(NAMES)} {draw.randrange(10**6)}."


def _reworded(text: str, draw: random.Random, other: str) -> str:
    """Other names, the first sentence behind the others, every fifth word that is neither number nor long left out."""
    sentences = SENTENCE.split(text)
    moved = [*sentences[1:-1], sentences[0], sentences[-1]] if len(sentences) > 2 else sentences
    kept = [
        word for index, word in enumerate(" ".join(moved).split()) if index % 5 or len(word) > 3 or not word.isalpha()
    ]
    return " ".join(draw.choice(NAMES) if NAME.fullmatch(word) else word for word in kept)


PLANTS = {
    "exact": _exact,
    "10-gram": lambda *given: _run(12, *given),
    "30-gram": lambda *given: _run(32, *given),
    "rule": _reworded,
}


def problems(count: int, benchmark: list[str]) -> Iterator[Row]:
    """PLANTED copies of each kind, spread evenly among the others."""
    draw = random.Random(0)
    made = {kind: _made(draw, texts) for kind, texts in (
        ("gsm8k", _texts("gsm8k_train.jsonl")), ("math", _texts("math500_test.jsonl")[250:]))
    }  # fmt: skip
    every = max(1, count // (PLANTED * len(PLANTS)))
    long = [text for text in benchmark if len(words(text)) > 40]
    plants = iter([(kind, text) for kind in PLANTS for text in draw.sample(long, PLANTED)])
    seen: set[str] = set()
    for index in range(count):
        planted = next(plants, None) if index % every == 0 else None
        text = next(made["math" if index % 5 else "gsm8k"])
        if planted:
            text = PLANTS[planted[0]](planted[1], draw, text)
        while text in seen:
            text += f" {draw.choice(NAMES)}?"
        seen.add(text)
        yield {"id": str(index), "problem": text, "expected_answer": None} | (
            {"planted": planted[0]} if planted else {}
        )


def run(count: int = NUM_PROBLEMS) -> Iterator[dict[str, Any]]:
    """Nothing when the data is not there."""
    if not SHARED_DATA.is_dir():
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_input(folder, count)
        start = time.perf_counter()
        planted = {
            row["problem"]: row["planted"]
            for row in map(orjson.loads, (folder / "rows.jsonl").read_bytes().splitlines())
            if "planted" in row
        }
        orjson_s = time.perf_counter() - start
        seconds, peak = _stage(folder / "out")
        plain = _plain(folder)
        found = list(read_rows(folder / "out" / "contaminated.jsonl"))
    yield _figure(f"decontaminate {count} problems, 6400 tests", seconds, "s", SECONDS_TARGET, plain * count)
    yield _figure("decontaminate, in passes of orjson over its input", seconds / orjson_s, "passes", None, None)
    yield _figure("decontaminate peak memory, all processes", peak / 2**30, "GiB RSS", GIB_TARGET, None)
    hits = Counter((planted.get(row["problem"]), method) for row in found for method in _methods(row))
    sizes = Counter(planted.values())
    for kind in PLANTS:
        yield _figure(f"decontaminate recall, planted for {kind}", hits[kind, kind] / sizes[kind], "share", None, None)
    for method in PLANTS:
        yield _figure(f"decontaminate, not planted and called {method}", hits[None, method], "problems", None, None)


def _methods(row: Row) -> set[str]:
    return {row["method"], *(other["method"] for other in row["also"])}


def _write_input(folder: Path, count: int) -> None:
    benchmarks = tests()
    (folder / "tests").mkdir()
    rows = [
        {"id": str(index), "benchmark": name, "problem": text, "expected_answer": None}
        for name, texts in benchmarks.items()
        for index, text in enumerate(texts)
    ]
    (folder / "tests" / "output.jsonl").write_bytes(b"".join(dumps(row) + b"\n" for row in rows))
    with (folder / "rows.jsonl").open("wb") as handle:
        handle.writelines(dumps(row) + b"\n" for row in problems(count, [row["problem"] for row in rows]))


def _stage(out: Path) -> tuple[float, int]:
    """(seconds, peak of the memory of all its processes in bytes)."""
    config = {
        "uses": "decontaminate", "name": "decontaminate", "output_dir": str(out), "judge": "rule", "ngrams": [10, 30],
        "inputs": [str(out.parent / "rows.jsonl")], "benchmarks": str(out.parent / "tests"), "workers": WORKERS,
        "model": {"name": "none", "hf_path": "none", "context_length": 1}, "server": {"kind": "embedded"},
    }  # fmt: skip
    out.mkdir()
    (out / "config.yaml").write_text(json.dumps(config))
    start, peak = time.perf_counter(), 0
    argv = [sys.executable, "-m", "recipes.run_stage", str(out / "config.yaml")]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _memory(watched))
            time.sleep(0.2)
    assert process.returncode == 0, (out / "error.json").read_text()
    return time.perf_counter() - start, peak


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def _plain(folder: Path) -> float:
    """Seconds a problem: a dense block of similarities for each 10,000 problems and benchmark, the five best of a row."""
    texts = [row["problem"] for _, row in zip(range(PEER_PROBLEMS), read_rows(folder / "rows.jsonl"), strict=False)]
    start = time.perf_counter()
    for corpus in tests().values():
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\\?\w+", sublinear_tf=True, dtype=np.float32)
        vectors = vectorizer.fit_transform(corpus)
        for first in range(0, len(texts), 10_000):
            scores = (vectorizer.transform(texts[first : first + 10_000]) @ vectors.T).toarray()
            np.argpartition(-scores, 5, axis=1)[:, :5]
    return (time.perf_counter() - start) / len(texts)


def _figure(name: str, value: float, unit: str, target: float | None, peer: float | None) -> dict[str, Any]:
    """One figure; a figure in seconds has as its ratio how many times faster than the peer it is."""
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "target": target,
        "peer": None if peer is None else round(peer, 1),
        "ratio": None if peer is None else round(peer / value, 2),
    }


if __name__ == "__main__":
    for each in run(int(sys.argv[1])):
        print(json.dumps(each), flush=True)
