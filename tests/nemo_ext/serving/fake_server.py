"""A local HTTP server that answers completions at once, or misbehaves as told."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from nemo_ext.machine import ports
from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client.probe import TEXT


class FakeServer:
    """A local HTTP server in a thread. `behave` may answer or break; None lets the default reply go out.

    Its port is none of those that outgoing connections get: one that is stopped and started again has it still.
    """

    def __init__(
        self, behave: Callable[[web.Request, int], Awaitable[web.StreamResponse | None]] | None = None
    ) -> None:
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.paths: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.open = self.most_open = 0
        self.health_status = 200
        self.models: list[dict[str, Any]] = [{"id": "fake"}]
        self.honours_n = self.honours_seed = True
        self.on_probe: Callable[[dict[str, Any]], web.Response] | None = None
        self.probes = 0
        """Requests of nemo_ext.serving.client.probe, which are answered here and not counted elsewhere."""
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
            app.router.add_post("/pooling", self._answer)
            app.router.add_get("/health", self._health)
            app.router.add_get("/v1/models", self._models)
            self.runner = web.AppRunner(app, shutdown_timeout=0.1)
            await self.runner.setup()
            listener = ports.bind("127.0.0.1", self.port)
            await web.SockSite(self.runner, listener).start()
            self.port = listener.getsockname()[1]
            ready.set()

        def work() -> None:
            self.loop.run_until_complete(listen())
            self.loop.run_forever()

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()
        assert ready.wait(60)

    def stop(self) -> None:
        if self.thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(60)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(60)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=self.health_status)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": self.models})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if TEXT in (body.get("prompt"), (body.get("messages") or [{}])[-1].get("content")):
            return self._probed(body)
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

    def _probed(self, body: dict[str, Any]) -> web.Response:
        self.probes += 1
        if self.on_probe is not None:
            return self.on_probe(body)
        text = "11" if self.honours_seed else str(self.probes)
        return reply_to(body, text, body.get("n", 1) if self.honours_n else 1)


def reply_to(body: dict[str, Any], text: str | None = None, count: int | None = None) -> web.Response:
    text = text or f"re: {body.get('prompt') or body['messages'][-1]['content']}"
    choices = []
    for index in range(count or body.get("n", 1)):
        said = text if index == 0 else f"{text} #{index}"
        message = {"text": said} if "prompt" in body else {"message": {"role": "assistant", "content": said}}
        choices.append({"index": index, "finish_reason": "stop", **message})
    usage = {"prompt_tokens": 3, "completion_tokens": 2 * len(choices)}
    return web.json_response({"choices": choices, "usage": usage})


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
