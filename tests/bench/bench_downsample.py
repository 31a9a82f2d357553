"""Fair downsampling of a data set of the real size: 14M rows to 1M, against one pass of orjson over the same lines."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from recipes.stages.curation.downsample import Config
from recipes.stages.curation.downsample import run as downsample
from tests.bench.memory import peak_memory

ROWS, KEEP, PROBLEMS = 13_972_791, 1_000_000, 607_300
SAMPLE = 500_000  # rows of the one-core orjson pass


def _write(path: Path, rows: int) -> None:
    """Rows of about the length of OpenMathInstruct-2's, samples of a problem one after another."""
    text = "We add the numbers and find that they make the whole, so the share of each is what is left. " * 7
    with path.open("wb", buffering=1 << 22) as out:
        for row in range(rows):
            problem = row * PROBLEMS // rows
            out.write(
                b'{"id":"%016x","problem":"Ava has %d pens and gives %d of them to each of her friends. How many are left, '
                b'if she buys as many again?","problem_source":"augmented_math","sample_index":%d,"generation":"%b"}\n'
                % (problem, problem, problem % 97, row % 23, text.encode())
            )
        out.flush()
        os.fsync(out.fileno())  # else it is still being written while it is read


def _orjson_pass(path: Path) -> float:
    """Seconds that one core takes to read every row of the file, from a part of it."""
    with path.open("rb") as handle:
        start = time.perf_counter()
        for _ in range(SAMPLE):
            orjson.loads(handle.readline())
        return (time.perf_counter() - start) * ROWS / SAMPLE


def _plain_read(path: Path) -> float:
    """Seconds to read the whole file; afterwards it is in the page cache, as far as it fits."""
    start = time.perf_counter()
    with path.open("rb", buffering=0) as handle:
        while handle.read(1 << 20):
            pass
    return time.perf_counter() - start


def run() -> Iterator[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="bench_downsample_", dir="."))
    try:
        source = folder / "in" / "output.jsonl"
        source.parent.mkdir()
        _write(source, ROWS)
        (source.parent / "manifest.json").write_text(json.dumps({}))
        limit, plain = _orjson_pass(source), _plain_read(source)
        start = time.perf_counter()
        with peak_memory() as peak:
            config = Config(
                uses="downsample",
                name="d",
                output_dir=str(folder / "out"),
                input=str(source.parent),
                num_rows=KEEP,
                workers=2,
            )
            facts = downsample(config)
        seconds = time.perf_counter() - start
        assert facts.rows_out == KEEP, f"{facts.rows_out} rows kept"
        size = source.stat().st_size / 1e9
    finally:
        shutil.rmtree(folder)
    yield {"name": f"downsample_14m_rows_{size:.1f}_gb", "value": round(seconds, 1), "unit": "s", "target": 60,
           "peer": round(limit, 1), "ratio": round(seconds / limit, 2)}  # fmt: skip
    yield {"name": "downsample_14m_against_reading_alone", "value": round(seconds, 1), "unit": "s", "target": None,
           "peer": round(plain, 1), "ratio": round(seconds / plain, 2)}  # fmt: skip
    yield {"name": "downsample_14m_memory", "value": round(peak.bytes / 1e9, 2), "unit": "GB", "target": 1.5,
           "peer": round(size, 2), "ratio": round(peak.bytes / 1e9 / size, 3)}  # fmt: skip
