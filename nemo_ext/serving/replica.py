"""The endpoints of one run: which are up, and which takes the next request."""

import asyncio
import logging
import os
import random
import time
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.failures import Failure, ServersDown

log = logging.getLogger(__name__)

HEALTH_TIMEOUT_S = 10.0
MAX_RECENT_ERRORS = 5


@dataclass(eq=False)
class Replica:
    endpoint: Endpoint
    headers: dict[str, str]
    urls: dict[str, URL]
    """By path."""
    in_flight: int = 0
    up: bool = True


def _replica(endpoint: Endpoint) -> Replica:
    headers = {"Content-Type": "application/json"}
    if endpoint.api_key_env is not None:
        key = os.environ.get(endpoint.api_key_env)
        if not key:
            raise ValueError(
                f"the environment variable {endpoint.api_key_env} is not set; it holds {endpoint.url}'s key"
            )
        headers["Authorization"] = f"Bearer {key}"
    paths = ("/v1/completions", "/v1/chat/completions", "/health")
    return Replica(endpoint, headers, {path: URL(endpoint.url + path) for path in paths})


@dataclass
class Pool:
    """Hands out the replica with the fewest open requests; replicas that fail leave until /health answers again.

    `all_down_s`: how long `acquire` waits with none up before it raises ServersDown with the last errors.
    """

    session: aiohttp.ClientSession
    replicas: list[Replica]
    all_down_s: float
    probe_interval_s: float
    recent_errors: list[str] = field(default_factory=list)
    _down_since: float = 0.0
    """time.monotonic() when the last replica went down."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _probes: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)

    @classmethod
    def of(
        cls, session: aiohttp.ClientSession, endpoints: list[Endpoint], all_down_s: float, probe_s: float
    ) -> "Pool":
        return cls(session, [_replica(endpoint) for endpoint in endpoints], all_down_s, probe_s)

    async def acquire(self, avoid: Replica | None) -> Replica:
        """The least busy replica that is up, not `avoid` if there is another."""
        while not (up := [replica for replica in self.replicas if replica.up]):
            await self._wait_for_one()
        others = [replica for replica in up if replica is not avoid]
        chosen = min(others or up, key=lambda replica: replica.in_flight)
        chosen.in_flight += 1
        return chosen

    async def _wait_for_one(self) -> None:
        left = self._down_since + self.all_down_s - time.monotonic()
        if left <= 0:
            errors = "\n  ".join(self.recent_errors)
            raise ServersDown(f"no server has answered for {self.all_down_s:g} s; the last errors were\n  {errors}")
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), left)
        except TimeoutError:
            return

    def failed(self, replica: Replica, failure: Failure) -> None:
        """Remember the error; take a suspect replica out until its /health answers."""
        self._note(replica, failure.message)
        if not (failure.suspect and replica.up):
            return
        replica.up = False
        if not any(other.up for other in self.replicas):
            self._down_since = time.monotonic()
        self._probes[id(replica)] = asyncio.create_task(self._probe(replica))

    def _note(self, replica: Replica, message: str) -> None:
        self.recent_errors.append(f"{replica.endpoint.url}: {message}")
        del self.recent_errors[:-MAX_RECENT_ERRORS]

    async def _probe(self, replica: Replica) -> None:
        while not await self._healthy(replica):
            await asyncio.sleep(self.probe_interval_s * random.uniform(0.8, 1.2))
        replica.up = True
        self._changed.set()

    async def _healthy(self, replica: Replica) -> bool:
        """Any answer but a server error counts: hosted services have no /health and say 404 or 401."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
        try:
            async with self.session.get(replica.urls["/health"], headers=replica.headers, timeout=timeout) as reply:
                return reply.status < 500
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            self._note(replica, f"/health: {type(error).__name__}: {error}")
            return False

    async def close(self) -> None:
        for probe in self._probes.values():
            probe.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)
