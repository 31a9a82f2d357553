"""The sandbox: trivial blocks per second, ours over HTTP against a plain `python -c` per block in the same run.

The peer keeps no state and is not isolated: what public stateless implementations do.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from nemo_ext.sandbox import access

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 3.0
PARALLEL = 50
TARGET = 100  # blocks/s
CODE = "x = 6 * 7\nx"
PEER_CODE = "x = 6 * 7\nprint(x)"


@contextlib.contextmanager
def _service() -> Iterator[tuple[str, str]]:
    """Its URL and its token."""
    with tempfile.TemporaryDirectory() as folder:
        config, address = Path(folder) / "config.yaml", Path(folder) / "sandbox.json"
        config.write_text("sandbox: {}\n")
        argv = [sys.executable, "-m", "nemo_ext.sandbox.service", str(config), "--address-file", str(address)]
        process = subprocess.Popen(argv, cwd=ROOT)
        try:
            while not address.exists():
                assert process.poll() is None, "the service ended while it started"
                time.sleep(0.05)
            yield json.loads(address.read_text())["url"], access.read(address)
        finally:
            process.terminate()
            process.wait()


async def _rate(workers: int, one: Callable[[int, int], Awaitable[None]]) -> float:
    """Calls per second of `workers` at once; each is told which it is and how many it has made."""
    start = time.perf_counter()

    async def work(worker: int) -> int:
        made = 0
        while time.perf_counter() - start < SECONDS:
            await one(worker, made)
            made += 1
        return made

    made = await asyncio.gather(*(work(worker) for worker in range(workers)))
    return sum(made) / (time.perf_counter() - start)


async def _ours(url: str, token: str) -> dict[str, float]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=access.header(token)) as http:

        async def execute(session: str) -> None:
            async with http.post(f"{url}/execute", json={"session": session, "code": CODE}) as reply:
                body = await reply.json()
                assert body["output"] == "42\n", body

        async def in_a_session(worker: int, made: int) -> None:
            await execute(f"s{worker}")

        async def in_a_new_one(worker: int, made: int) -> None:
            await execute(f"n{worker}-{made}")
            async with http.delete(f"{url}/sessions/n{worker}-{made}") as reply:
                await reply.read()

        return {
            "sequential": await _rate(1, in_a_session),
            "parallel50": await _rate(PARALLEL, in_a_session),
            "new_session": await _rate(1, in_a_new_one),
            "parallel50_new_session": await _rate(PARALLEL, in_a_new_one),
        }


async def _peer() -> dict[str, float]:
    async def run(worker: int, made: int) -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", PEER_CODE, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        assert output == b"42\n", output

    sequential, parallel = await _rate(1, run), await _rate(PARALLEL, run)
    return {
        "sequential": sequential,
        "parallel50": parallel,
        "new_session": sequential,
        "parallel50_new_session": parallel,
    }


def run() -> Iterator[dict[str, Any]]:
    with _service() as (url, token):
        ours = asyncio.run(_ours(url, token))
    peer = asyncio.run(_peer())
    for name, value in ours.items():
        yield {
            "name": f"sandbox_blocks_{name}",
            "value": round(value, 1),
            "unit": "blocks/s",
            "target": TARGET,
            "peer": round(peer[name], 1),
            "ratio": round(value / peer[name], 2),
        }
