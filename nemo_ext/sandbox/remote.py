"""The client's side of a session: survives a restart of the service, a move to another, and a full one."""

import asyncio
import random
import time
import uuid
from dataclasses import dataclass
from zlib import crc32

import aiohttp
import orjson

from nemo_ext.serving.client.failures import ClientStopped

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.1, 5.0
CONNECT_S = 10.0
JSON = {"Content-Type": "application/json"}


class SandboxDown(ClientStopped):
    """No sandbox took a block for patience_s."""


@dataclass(frozen=True)
class Executed:
    """The service's reply; see service.py."""

    ended: str
    output: str
    message: str


class RemoteSession:
    """One trace's session on one of `urls`. Its history of blocks is kept here, so that any service can rebuild it."""

    def __init__(self, http: aiohttp.ClientSession, urls: list[str], patience_s: float) -> None:
        self.http = http
        self.urls = urls
        self.patience_s = patience_s
        self.name = uuid.uuid4().hex
        self.url_index = crc32(self.name.encode()) % len(urls)
        self.history: list[str] = []
        self.started = False

    async def execute(self, code: str, timeout_s: float) -> Executed:
        """Run a block, waiting for a sandbox if need be.

        Raises:
            SandboxDown: patience_s are over, or the service refuses what we send.
        """
        code = code.encode(errors="replace").decode()
        started = time.monotonic()
        attempt = 0
        while True:
            reply = await self._attempt(code, timeout_s)
            if not isinstance(reply, str):
                return self._remember(code, reply)
            if time.monotonic() - started > self.patience_s:
                raise SandboxDown(
                    f"the sandbox at {', '.join(self.urls)} has not run a block for {self.patience_s:g} s: {reply}."
                    " Look at its log; completions so far are kept, and a rerun goes on from there"
                )
            await asyncio.sleep(min(FIRST_BACKOFF_S * 2**attempt, MAX_BACKOFF_S) * random.uniform(0.5, 1.5))
            attempt += 1

    async def _attempt(self, code: str, timeout_s: float) -> dict[str, object] | str:
        """The reply, or why there is none."""
        body = {"session": self.name, "code": code, "timeout_s": timeout_s, "history": self.history}
        limit = aiohttp.ClientTimeout(
            total=self.patience_s + timeout_s * (1 + len(self.history)), sock_connect=CONNECT_S
        )
        self.started = True
        try:
            url = f"{self.urls[self.url_index]}/execute"
            async with self.http.post(
                url, data=orjson.dumps(body), headers=JSON, timeout=limit, allow_redirects=False
            ) as reply:
                content = await reply.read()
            if reply.status == 200:
                return dict(orjson.loads(content))
        except (aiohttp.ClientError, OSError, orjson.JSONDecodeError) as error:  # TimeoutError is an OSError
            await self._move()
            return f"{type(error).__name__}: {error}"
        text = f"HTTP {reply.status}: {content[:500].decode(errors='replace')}"
        if reply.status == 401:
            raise SandboxDown(f"the sandbox at {url} does not take our token, so another service may listen there now")
        if reply.status < 500 and reply.status != 429:
            raise SandboxDown(f"the sandbox at {url} refused a block, which is an error of this program: {text}")
        return text

    async def renew(self) -> None:
        """End the session; the next block begins one that knows nothing of it."""
        await self.delete()
        self.name, self.started = uuid.uuid4().hex, False
        self.history.clear()

    async def _move(self) -> None:
        """Go to the next service, under a new name: the block may have run, and must not run twice in one session."""
        await self.delete()
        self.name = uuid.uuid4().hex
        self.url_index = (self.url_index + 1) % len(self.urls)

    def _remember(self, code: str, reply: dict[str, object]) -> Executed:
        if reply["state"] == "lost":
            self.history.clear()
        ended = str(reply["class"])
        if not reply["lost"] and ended != "syntax_error":
            self.history.append(code)
        return Executed(ended, str(reply["output"]), str(reply["message"]))

    async def delete(self) -> None:
        """End the session, if there is one; a service that is gone has ended it already."""
        if not self.started:
            return
        url = f"{self.urls[self.url_index]}/sessions/{self.name}"
        try:
            async with self.http.delete(url, timeout=aiohttp.ClientTimeout(total=CONNECT_S)) as reply:
                await reply.read()
        except (aiohttp.ClientError, OSError):
            return
