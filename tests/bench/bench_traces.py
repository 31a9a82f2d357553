"""Traces with one block of code each, 256 in flight, as generate makes them: two embedded servers with tiny_coder, the
client, the tool loop, the sandbox. Large toy word problems, 8 samples of each, at a temperature of 0.3, where nearly every
trace has its block.

Peer, in the same run: the same stage asks the same servers the same questions, and its code runs in a sandbox that replays
a trace in a fresh interpreter at each execution. `ipython`: as OpenMathInstruct-1's published code does; measured where
IPython can be imported (pip install --target <folder> ipython; PYTHONPATH=<folder> make bench ONLY=traces). `plain`: the
least that a fresh interpreter can be. Rates are of the part that asks; those per CPU-second, which other work on the machine
disturbs less, of the model's servers, the sandbox and the stage together, or of the sandbox alone.

`blocks` sends the traces' blocks to each sandbox, each in a session of its own, and asks no model.
"""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from nemo_ext.curation.code_blocks import blocks
from nemo_ext.sandbox import access
from nemo_ext.sandbox.remote import RemoteSession
from nemo_ext.serving.address import wait_for
from tests.bench.replaying_sandbox import INTERPRETERS, replaying_sandbox
from tests.composing import resolve_recipe

ROOT = Path(__file__).resolve().parents[2]
TOKEN_NAME = "TRACES_SANDBOX_TOKEN"
NUM_PROBLEMS, NUM_SAMPLES, SERVERS, IN_FLIGHT = 48, 8, 2, 256
NUM_TRACES = NUM_PROBLEMS * NUM_SAMPLES
WORDS = (
    "+scale=tiny", "model@teacher=tiny_coder", "prompt=openmath_code", "prompt.few_shot=toy_code_gsm8k", "use_tools=true",
    f"num_samples={NUM_SAMPLES}", "sampling.temperature=0.3", "sampling.top_p=0.95", "sampling.max_tokens=160",
)  # fmt: skip
INPUT = f"toy://seeds/gsm8k?num_rows={NUM_PROBLEMS}&large=1&seed=5"
NUM_BLOCKS = 128  # sent to a sandbox without a model
LIMITS = {"timeout_s": 60.0, "patience_s": 3600.0}  # an interpreter that a busy machine starts slowly has not failed
PARTS = ("model servers", "sandbox", "stage")
TARGET = 6  # times the peer's rate


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as started:
        folder = Path(name)
        content = resolve_recipe("generate", *WORDS)["generate"].tasks[0].content
        servers = [
            started.enter_context(_service("serving.serve", folder / f"server{i}", content)) for i in range(SERVERS)
        ]
        ours = started.enter_context(_service("sandbox.service", folder / "sandbox", content))
        os.environ[TOKEN_NAME] = access.read(folder / "sandbox" / "address.json")
        models = [url for url, _ in servers]
        _stage(folder / "warm", content, models, ours, servers)
        measured = _stage(folder / "ours", content, models, ours, servers)
        codes = _codes(folder / "ours")[:NUM_BLOCKS]
        rate = _blocks_per_s(ours[0], codes)
        for what in PARTS:
            yield _row(f"traces CPU {what}", measured[what], None, unit="ms of CPU a trace")
        for interpreter in _interpreters():
            with replaying_sandbox(interpreter) as peer:
                theirs = _stage(folder / interpreter, content, models, peer, servers)
                their_rate = _blocks_per_s(peer[0], codes)
            same = _same_traces(folder / "ours", folder / interpreter)
            assert same > 0.99 * NUM_TRACES, f"{same} of {NUM_TRACES} traces are the same ones"
            yield _row(f"traces/s to {interpreter}", measured["rate"], theirs["rate"], TARGET)
            for whose, parts in (("", PARTS), ("sandbox ", PARTS[1:2])):
                own, other = (1000 / sum(of[part] for part in parts) for of in (measured, theirs))
                yield _row(f"traces {whose}per CPU-second to {interpreter}", own, other, TARGET, "traces/CPU-s")
            yield _row(f"traces blocks/s to {interpreter}", rate, their_rate, TARGET, "blocks/s")


def _interpreters() -> list[str]:
    """Those that this Python can run."""
    return [name for name in INTERPRETERS if name == "plain" or importlib.util.find_spec("IPython")]


def _row(
    name: str, value: float, peer: float | None, target: float | None = None, unit: str = "traces/s"
) -> dict[str, Any]:
    ratio = round(value / peer, 2) if peer else None
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "target": target,
        "peer": peer and round(peer, 2),
        "ratio": ratio,
    }


@contextmanager
def _service(module: str, folder: Path, content: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Its URL and the id of its process."""
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps(content))  # JSON is YAML
    address = folder / "address.json"
    argv = [sys.executable, "-m", f"nemo_ext.{module}", str(folder / "config.yaml"), "--address-file", str(address)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield wait_for([address], 120)[0].url, process.pid
    finally:
        process.terminate()
        process.wait()


def _stage(
    folder: Path, content: dict[str, Any], models: list[str], sandbox: tuple[str, int], servers: list[tuple[str, int]]
) -> dict[str, float]:
    """Traces per second of the part that asks, and milliseconds of CPU a trace by who took them."""
    folder.mkdir()
    server = {"kind": "external", "urls": models, "concurrency": IN_FLIGHT // SERVERS, "model": "tiny_coder"}
    keys = {
        "output_dir": str(folder),
        "input": INPUT,
        "server": server,
        "sandbox_urls": [sandbox[0]],
        "sandbox_token_env": TOKEN_NAME,
        "tools": content["tools"] | LIMITS,
    }
    (folder / "config.yaml").write_text(json.dumps({**content, **keys, "samples_per_request": 1}))
    before = _cpu([pid for _, pid in servers]), _cpu([sandbox[1]])
    with (folder / "log").open("wb") as log:
        argv = [sys.executable, "-m", "recipes.run_stage", str(folder / "config.yaml")]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (folder / "log").read_text()
    after = _cpu([pid for _, pid in servers]), _cpu([sandbox[1]])
    manifest = json.loads((folder / "manifest.json").read_text())
    each = 1000 / manifest["rows_out"]
    return {
        "rate": manifest["figures"]["requests_per_s"],
        "model servers": (after[0] - before[0]) * each,
        "sandbox": (after[1] - before[1]) * each,
        "stage": (usage.ru_utime + usage.ru_stime) * each,
    }


def _cpu(pids: list[int]) -> float:
    """Seconds of these processes, of those they have waited for, and of those they still have."""
    processes = [each for pid in pids for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
    return sum(sum(process.cpu_times()[:4]) for process in processes)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / "output.jsonl").open() as lines:
        yield from map(json.loads, lines)


def _codes(folder: Path) -> list[str]:
    """The block of every trace; a few have none or a second."""
    found = [block.text for row in _rows(folder) for block in blocks(row["generation"]) or () if block.kind == "code"]
    assert 0.95 < len(found) / NUM_TRACES < 1.05, f"{len(found)} blocks are not one a trace"
    return found


def _same_traces(first: Path, second: Path) -> int:
    return sum(
        one["generation"] == other["generation"] for one, other in zip(_rows(first), _rows(second), strict=True)
    )


def _blocks_per_s(url: str, codes: list[str]) -> float:
    started = time.perf_counter()
    asyncio.run(_execute(url, codes))
    return len(codes) / (time.perf_counter() - started)


async def _execute(url: str, codes: list[str]) -> None:
    places = asyncio.Semaphore(IN_FLIGHT)
    headers = access.header(os.environ[TOKEN_NAME])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as http:

        async def one(code: str) -> None:
            async with places:
                session = RemoteSession(http, [url], LIMITS["patience_s"])
                await session.execute(code, LIMITS["timeout_s"])
                await session.delete()

        await asyncio.gather(*map(one, codes))
