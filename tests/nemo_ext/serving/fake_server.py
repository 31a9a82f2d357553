"""A local HTTP server that answers completions at once, or misbehaves as told."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from nemo_ext.serving.address import Endpoint


class FakeServer:
    """A local HTTP server in a thread. `behave` may answer or break; None lets the default reply go out."""

    def __init__(
        self, behave: Callable[[web.Request, int], Awaitable[web.StreamResponse | None]] | None = None
    ) -> None:
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.paths: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.open = self.most_open = 0
        self.health_status = 200
        self.port = 0
        self.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.port}", "fake", concurrency=8)

    def start(self) -> None:
        ready = threading.Event()
        self.loop = asyncio.new_event_loop()

        async def listen() -> None:
            app = web.Application()
            app.router.add_post("/v1/{kind:.*}", self._answer)
            app.router.add_get("/health", self._health)
            self.runner = web.AppRunner(app, shutdown_timeout=0.1)
            await self.runner.setup()
            site = web.TCPSite(self.runner, "127.0.0.1", self.port)
            await site.start()
            self.port = self.runner.addresses[0][1]
            ready.set()

        def work() -> None:
            self.loop.run_until_complete(listen())
            self.loop.run_forever()

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        if self.thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=self.health_status)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))
        self.paths[request.path] += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            special = await self.behave(request, len(self.bodies) - 1) if self.behave else None
            return special or reply_to(self.bodies[-1] if not self.behave else await request.json())
        finally:
            self.open -= 1


def reply_to(body: dict[str, Any]) -> web.Response:
    text = f"re: {body.get('prompt') or body['messages'][-1]['content']}"
    message = {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
    choice = {"index": 0, "finish_reason": "stop", **message}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


@pytest.fixture
def fake() -> Iterator[Callable[..., FakeServer]]:
    """fake(behave) starts a server; all are stopped after the test."""
    servers: list[FakeServer] = []

    def make(behave: Any = None) -> FakeServer:
        servers.append(FakeServer(behave))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()
