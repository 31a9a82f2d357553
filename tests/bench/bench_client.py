"""The generate stage against a server that answers at once: requests per second, CPU and memory of its process.

Everything is on: rows read and rendered, keys, the resume index, one append per completion, output rows. 200,000
requests of one process, 128 in flight, prompts of about 700 bytes.

Peer, in the same run: a plain aiohttp loop, one task per request behind a semaphore, as most pipelines write it; it
renders nothing and keeps nothing.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.canned_server import canned_server

ROOT = Path(__file__).resolve().parents[2]
NUM_REQUESTS = 200_000
NUM_PEER_REQUESTS = 20_000
IN_FLIGHT = 128
PROBLEM = "Nadia has {i} coins and buys 7 more. " + "How many coins does she have now, all counted? " * 14


def run() -> Iterator[dict[str, Any]]:
    with canned_server() as url, tempfile.TemporaryDirectory() as folder:
        peer_rate, peer_cpu = _peer(url)
        config = _write_stage(Path(folder), url)
        first = _stage(config)
        again = _stage(config)
    yield _row("client req/s", first["rate"], "requests/s", 4000, peer_rate)
    yield _row("client CPU", first["cpu"] / NUM_REQUESTS * 1e6, "us/request", 250, peer_cpu)
    yield _row("client memory", first["rss"] / 2**20, "MiB", 200, None)
    yield _row("client resume", again["seconds"], "s for 200,000 done", None, first["seconds"])


def _row(name: str, value: float, unit: str, target: float | None, peer: float | None) -> dict[str, Any]:
    ratio = value / peer if peer else None
    return {"name": name, "value": value, "unit": unit, "target": target, "peer": peer, "ratio": ratio}


def _write_stage(folder: Path, url: str) -> Path:
    with (folder / "rows.jsonl").open("w") as rows:
        for i in range(NUM_REQUESTS):
            rows.write(json.dumps({"id": f"r{i}", "problem": PROBLEM.format(i=i), "problem_source": "math"}) + "\n")
    prompt = {"name": "p", "template": "base", "user": "Problem:\n{problem}\n\nSolution:\n"}
    config = {
        "uses": "generate", "name": "out", "output_dir": str(folder / "out"), "input": str(folder / "rows.jsonl"),
        "model": {"name": "canned", "hf_path": "canned", "context_length": 8192}, "by_source": {"*": {"prompt": prompt}}, "seed": 1,
        "server": {"kind": "external", "urls": [url], "concurrency": IN_FLIGHT, "model": "canned"},
        "sampling": {"temperature": 1.0, "top_p": 0.95, "max_tokens": 256},
    }  # fmt: skip
    (folder / "out").mkdir()
    (folder / "out" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    return folder / "out" / "config.yaml"


def _stage(config: Path) -> dict[str, float]:
    """The whole process's wall seconds, CPU seconds and peak memory; requests per second of the part that asks."""
    (config.parent / "output.jsonl").unlink(missing_ok=True)
    argv = [sys.executable, "-m", "recipes.run_stage", str(config)]
    with (config.parent / "log").open("wb") as log:
        started = time.perf_counter()
        process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (config.parent / "log").read_text()
    figures = json.loads((config.parent / "manifest.json").read_text())["figures"]
    return {
        "seconds": time.perf_counter() - started,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss * 1024,
        "rate": figures.get("requests_per_s", 0.0),
    }


def _peer(url: str) -> tuple[float, float]:
    """Requests per second and CPU microseconds per request."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    asyncio.run(_gather(url))
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return NUM_PEER_REQUESTS / seconds, cpu / NUM_PEER_REQUESTS * 1e6


async def _gather(url: str) -> None:
    semaphore = asyncio.Semaphore(IN_FLIGHT)

    async def one(session: aiohttp.ClientSession, i: int) -> str:
        body = {"model": "canned", "prompt": PROBLEM.format(i=i), "temperature": 1.0, "max_tokens": 256, "seed": 1}
        async with semaphore, session.post(url + "/v1/completions", json=body) as reply:
            return (await reply.json())["choices"][0]["text"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session, i) for i in range(NUM_PEER_REQUESTS)))
