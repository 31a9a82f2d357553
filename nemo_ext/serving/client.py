"""The one client: sends requests to OpenAI-compatible servers, retries what is worth it, and hands back completions.

    stats = complete(requests, endpoints, ClientConfig(), on_result=lambda c: store.append(c), on_tick=None)

`requests` may be a generator of any length: a request is taken from it only when a worker is free.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import aiohttp

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.attempt import attempt
from nemo_ext.serving.client_config import ClientConfig
from nemo_ext.serving.failures import Failure, TooManyFailures
from nemo_ext.serving.replica import Pool, Replica
from nemo_ext.serving.requests import Completion, Request
from nemo_ext.serving.stop_signals import run_until_signal

log = logging.getLogger(__name__)

TICK_S = 1.0
MAX_BACKOFF_S = 30.0
CONNECT_TIMEOUT_S = 30.0


@dataclass
class Stats:
    """Counts so far; `errors` are part of `done`."""

    done: int = 0
    errors: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    """By kind: connect, reset, timeout, truncated, bad_reply, or the HTTP status."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    in_flight: int = 0
    seconds: float = 0.0


def complete(
    requests: Iterable[Request],
    endpoints: list[Endpoint],
    config: ClientConfig,
    on_result: Callable[[Completion], None],
    on_tick: Callable[[Stats], None] | None = None,
) -> Stats:
    """Run every request and return the totals. Blocks; runs its own event loop.

    `on_result` gets each completion as it arrives, in no order; `on_tick` the totals about once a second and at the
    end. What either raises stops the run.

    Raises:
        ValueError: no endpoints, or an api_key_env that is not set.
        ServersDown, TooManyFailures: the run cannot go on.
        KeyboardInterrupt, SystemExit: SIGINT, SIGTERM, unless the caller has handlers of its own, which then run;
            Interrupted if those return.
    """
    if not endpoints:
        raise ValueError("no endpoints: a server must be running or its URL given before there can be requests")
    run = _Run(iter(requests), endpoints, config, on_result, on_tick)
    run_until_signal(run.all())
    return run.stats


class _Run:
    def __init__(
        self,
        requests: Iterator[Request],
        endpoints: list[Endpoint],
        config: ClientConfig,
        on_result: Callable[[Completion], None],
        on_tick: Callable[[Stats], None] | None,
    ) -> None:
        self.requests = requests
        self.endpoints = endpoints
        self.config = config
        self.on_result = on_result
        self.on_tick = on_tick
        self.stats = Stats()
        self.started = time.monotonic()
        self.failed_in_a_row: list[str] = []
        self.stopping = False

    async def all(self) -> None:
        """Workers share the iterator; the first exception of any task cancels the others."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=self.config.keepalive_s, ttl_dns_cache=300)
        timeout = aiohttp.ClientTimeout(total=self.config.timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        use_proxies = any(endpoint.url.startswith("https://") for endpoint in self.endpoints)  # not between nodes
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=use_proxies) as session:
            self.pool = Pool.of(session, self.endpoints, self.config.all_down_s, self.config.backoff_s)
            ticker = asyncio.create_task(self._tick())
            try:
                await self._work()
            finally:
                ticker.cancel()
                await self.pool.close()
        self._report()

    async def _work(self) -> None:
        count = sum(endpoint.concurrency for endpoint in self.endpoints)
        workers: list[asyncio.Task[None]] = []
        try:
            for _ in range(count):
                request = next(self.requests, None)
                if request is None:
                    break
                workers.append(asyncio.create_task(self._worker(request)))
            finished, _ = (
                await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION) if workers else (set(), set())
            )
            for worker in finished:
                worker.result()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _worker(self, first: Request) -> None:
        request: Request | None = first
        while request is not None:
            self.stats.in_flight += 1
            try:
                completion = await self._complete(request)
            finally:
                self.stats.in_flight -= 1
            if self.stopping:
                return
            self.stopping = True  # and it stays so if the caller's code raises: nobody calls that again
            self._deliver(completion)
            request = next(self.requests, None)
            self.stopping = False

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._report()

    def _report(self) -> None:
        self.stats.seconds = time.monotonic() - self.started
        if self.on_tick is not None:
            self.on_tick(self.stats)

    def _deliver(self, completion: Completion) -> None:
        stats = self.stats
        stats.done += 1
        stats.prompt_tokens += completion.num_prompt_tokens
        stats.generated_tokens += completion.num_generated_tokens
        self.on_result(completion)
        if completion.error is None:
            self.failed_in_a_row.clear()
            return
        stats.errors += 1
        self.failed_in_a_row.append(completion.error)
        if len(self.failed_in_a_row) >= self.config.max_permanent_in_a_row:
            last = "\n  ".join(self.failed_in_a_row[-5:])
            raise TooManyFailures(
                f"{len(self.failed_in_a_row)} requests in a row failed; the last errors were\n  {last}"
            )

    async def _complete(self, request: Request) -> Completion:
        """Attempts until one succeeds, the request is refused, or none are left."""
        started = time.monotonic()
        last: Replica | None = None
        number = 0
        while True:
            number += 1
            replica = await self.pool.acquire(avoid=last)
            try:
                result = await attempt(self.pool.session, request, replica, started, number)
            finally:
                replica.in_flight -= 1
            if isinstance(result, Completion):
                return result
            self.pool.failed(replica, result)
            if not result.retry or number == self.config.max_attempts:
                seconds = time.monotonic() - started
                return Completion(request.key, "", None, 0, 0, seconds, result.message, number, result.retry)
            last = replica
            self.stats.retries[result.kind] += 1
            await asyncio.sleep(self._backoff(number, result))

    def _backoff(self, number: int, failure: Failure) -> float:
        """Doubling, with jitter so that requests that failed together do not come back together."""
        wait = min(self.config.backoff_s * 2 ** (number - 1), MAX_BACKOFF_S) * random.uniform(0.5, 1.5)
        return max(wait, min(failure.retry_after_s, MAX_BACKOFF_S))
