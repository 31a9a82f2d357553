"""Requests per second and CPU per request of our client, against a server that answers at once.

Peer, in the same run: a plain aiohttp loop, one task per request behind a semaphore, as most pipelines write it.
"""

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client import complete
from nemo_ext.serving.client_config import ClientConfig
from nemo_ext.serving.requests import Request, Sampling

NUM_REQUESTS = 20_000
IN_FLIGHT = 128
PROMPT = "Nadia has 12 coins and buys 7 more. " * 20  # about 700 bytes
SAMPLING = Sampling(1.0, 0.95, 0, 256, (), 1)
REPLY = json.dumps(
    {
        "choices": [{"index": 0, "text": "x" * 800, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 200},
    }
).encode()
SERVER = """
import asyncio, sys, uvloop
reply = sys.stdin.buffer.read()
answer = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(reply) + reply
class Canned(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        head, end, body = self.data.partition(b"\\r\\n\\r\\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(None, 1)[0]):
            self.data = b""
            self.transport.write(answer)
async def main():
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
uvloop.run(main())
"""


def run() -> Iterator[dict[str, Any]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(REPLY)
    process.stdin.close()
    url = f"http://127.0.0.1:{int(process.stdout.readline())}"
    try:
        peer_rate, peer_cpu = _measure(lambda: asyncio.run(_gather(url)))
        our_rate, our_cpu = _measure(lambda: _ours(url))
    finally:
        process.kill()
        process.wait()
    yield _row("client req/s", our_rate, "requests/s", peer_rate)
    yield _row("client CPU", our_cpu, "us/request", peer_cpu)


def _row(name: str, value: float, unit: str, peer: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "target": None, "peer": peer, "ratio": value / peer}


def _measure(work: Callable[[], None]) -> tuple[float, float]:
    """Requests per second and CPU microseconds of this process per request."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return NUM_REQUESTS / seconds, cpu / NUM_REQUESTS * 1e6


def _ours(url: str) -> None:
    done = 0

    def count(completion: object) -> None:
        nonlocal done
        done += 1

    requests = (Request(str(i), PROMPT, SAMPLING) for i in range(NUM_REQUESTS))
    complete(requests, [Endpoint(url, "m", concurrency=IN_FLIGHT)], ClientConfig(), count)
    assert done == NUM_REQUESTS


async def _gather(url: str) -> None:
    semaphore = asyncio.Semaphore(IN_FLIGHT)
    body = {"model": "m", "prompt": PROMPT, "temperature": 1.0, "top_p": 0.95, "max_tokens": 256, "seed": 1}

    async def one(session: aiohttp.ClientSession) -> str:
        async with semaphore, session.post(url + "/v1/completions", json=body) as reply:
            return (await reply.json())["choices"][0]["text"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session) for _ in range(NUM_REQUESTS)))
