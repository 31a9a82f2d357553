"""A completions server of its own process, whose answers are a function of prompt and seed, and which breaks at random.

    python -m tests.nemo_ext.serving.faulty_server <port> <share of faults> <stall seconds> <delay seconds> [chats]

Prints its port. A share of requests meets one of: a 500, a reset, a stall, a truncated body, a body that is not JSON,
and replies of other choices or another model. A prompt that holds "refuse me" is answered 400, always.
"""

import asyncio
import hashlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web

from nemo_ext.machine import ports
from nemo_ext.serving.address import Endpoint

ROOT = Path(__file__).resolve().parents[3]
MODEL = "faulty"


def answer_text(prompt: str, seed: int, choice: int = 0) -> str:
    return f"{hashlib.sha256(f'{prompt}|{seed}|{choice}'.encode()).hexdigest()[:24]} is the answer to {prompt[:40]}"


def reply_to(body: dict[str, Any]) -> dict[str, Any]:
    texts = [answer_text(body["prompt"], body.get("seed", 0), index) for index in range(body.get("n", 1))]
    choices = [{"index": index, "text": text, "finish_reason": "stop"} for index, text in enumerate(texts)]
    return {"model": MODEL, "choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 5 * len(texts)}}


async def chat(request: web.Request) -> web.StreamResponse:
    """The same to a chat's last message, without faults."""
    body = orjson.loads(await request.read())
    reply = reply_to(body | {"prompt": body["messages"][-1]["content"]})
    choices = [
        {
            "index": choice["index"],
            "message": {"role": "assistant", "content": choice["text"]},
            "finish_reason": "stop",
        }
        for choice in reply["choices"]
    ]
    return web.json_response(reply | {"choices": choices})


class Faulty:
    def __init__(self, share: float, stall_s: float, delay_s: float) -> None:
        self.share, self.stall_s, self.delay_s = share, stall_s, delay_s
        self.random = random.Random(0)
        self.faults = [self._500, self._reset, self._stall, self._truncated, self._no_json, self._wrong]

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        await asyncio.sleep(self.delay_s)
        if "refuse me" in body["prompt"]:
            return web.json_response({"error": {"message": "the prompt is too long"}}, status=400)
        if self.random.random() < self.share:
            return await self.random.choice(self.faults)(request, body)
        return web.json_response(reply_to(body))

    async def _500(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=500, text="boom")

    async def _reset(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _stall(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(self.stall_s)
        return web.json_response(reply_to(body))

    async def _truncated(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        data = orjson.dumps(reply_to(body))
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        assert request.transport is not None
        request.transport.close()
        return response

    async def _no_json(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(text=self.random.choice(["<html>busy</html>", "", "null", "[]", '{"choices": [{}]}']))

    async def _wrong(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        reply = reply_to(body)
        if self.random.random() < 0.5:
            return web.json_response(reply | {"model": "another-model"})
        return web.json_response(reply | {"choices": [choice | {"index": 7} for choice in reply["choices"]]})


async def _health(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": MODEL}]})


async def main(port: int, share: float, stall_s: float, delay_s: float, chats: bool) -> None:
    app = web.Application()
    app.router.add_post("/v1/completions", Faulty(share, stall_s, delay_s).completions)
    if chats:
        app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/health", _health)
    app.router.add_get("/v1/models", _models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = ports.bind("127.0.0.1", port)
    await web.SockSite(runner, listener).start()
    print(listener.getsockname()[1], flush=True)
    await asyncio.Event().wait()


class Server:
    """One such process; `stop` and `start` keep the port, which is none that outgoing connections get."""

    def __init__(self, share: float = 0.0, stall_s: float = 10.0, delay_s: float = 0.0, chats: bool = True) -> None:
        self.arguments = [str(share), str(stall_s), str(delay_s), *(["chats"] if chats else [])]
        self.port = 0
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-m", "tests.nemo_ext.serving.faulty_server", str(self.port), *self.arguments]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.url, MODEL, concurrency=8)


@contextmanager
def servers(count: int, make: Callable[[], Server] = Server) -> Iterator[list[Server]]:
    started: list[Server] = []
    try:
        for _ in range(count):
            started.append(make())
        yield started
    finally:
        for server in started:
            server.stop()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *map(float, sys.argv[2:5]), chats="chats" in sys.argv[5:]))
