"""The one client: sends requests to OpenAI-compatible servers, retries what is worth it, and hands back completions.

    stats = complete(requests, endpoints, ClientConfig(), on_result=store.append, on_tick=None)

`requests` may be a generator of any length: a request is taken from it only when a worker is free.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.failures import Failure, Refused, TooManyFailures, check_patience
from nemo_ext.serving.client.hedge import first_answer
from nemo_ext.serving.client.one_request import attempt
from nemo_ext.serving.client.pool import Pool
from nemo_ext.serving.client.replica import Replica
from nemo_ext.serving.client.reply_flaws import OK, content_class
from nemo_ext.serving.client.requests import Completion, Request
from nemo_ext.serving.client.stop_signals import run_until_signal

log = logging.getLogger(__name__)

TICK_S = 1.0
MAX_BACKOFF_S = 30.0
OnResult = Callable[[list[Completion]], None]
Send = Callable[[Request], Awaitable[Completion]]
Encode = Callable[[str], tuple[int, ...]]


class Loop(AbstractAsyncContextManager[Any], Protocol):
    """Turns one request into several, such as a tool loop; entered and left inside the client's event loop."""

    async def __call__(self, request: Request, send: Send) -> Completion: ...


@dataclass
class Stats:
    """Counts so far, by sample; `errors` are part of `done`."""

    done: int = 0
    errors: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    """Retries by kind: connect, reset, timeout, truncated, bad_reply, or the HTTP status."""
    flawed: Counter[str] = field(default_factory=Counter)
    """Kept, but empty, cut at their limit (length), or repeating themselves (repetition)."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    uncounted: int = 0
    """Completions whose tokens the server does not count."""
    in_flight: int = 0
    up: int = 0
    """Servers that take requests."""
    seconds: float = 0.0


def complete(
    requests: Iterable[Request],
    endpoints: list[Endpoint],
    config: ClientConfig,
    on_result: OnResult,
    on_tick: Callable[[Stats], None] | None = None,
    loop: Loop | None = None,
    encode: Encode | None = None,
) -> Stats:
    """Run every request and return the totals. Blocks; runs its own event loop.

    `on_result` gets the completions of each request as they arrive, in no order; `on_tick` the totals about once a
    second and at the end. What either raises stops the run. `loop` makes a whole trace of each request;
    `encode` the token ids that are sent for prompts that are rendered.

    Raises:
        ValueError: no endpoints, or an api_key_env that is not set.
        ServersDown, TooManyFailures, Refused, ServerBusy: the run cannot go on.
        KeyboardInterrupt, SystemExit: SIGINT, SIGTERM, unless the caller has handlers of its own, which then run;
            Interrupted if those return.
    """
    if not endpoints:
        raise ValueError("no endpoints: a server must be running or its URL given before there can be requests")
    run = _Run(iter(requests), endpoints, config, on_result, on_tick, loop, encode)
    run_until_signal(run.all())
    return run.stats


class _Run:
    def __init__(
        self,
        requests: Iterator[Request],
        endpoints: list[Endpoint],
        config: ClientConfig,
        on_result: OnResult,
        on_tick: Callable[[Stats], None] | None,
        loop: Loop | None,
        encode: Encode | None,
    ) -> None:
        self.requests = requests
        self.endpoints = endpoints
        self.config = config
        self.on_result = on_result
        self.on_tick = on_tick
        self.loop = loop
        self.encode = encode
        self.stats = Stats()
        self.started = time.monotonic()
        self.failed_in_a_row: list[str] = []
        self.stopping = False

    async def all(self) -> None:
        """Workers share the iterator; the first exception of any task cancels the others."""
        self.pool = Pool(self.endpoints, self.config)
        ticker = asyncio.create_task(self._tick())
        try:
            async with self.loop or nullcontext():
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
                completions = await self._trace(request)
            finally:
                self.stats.in_flight -= 1
            if self.stopping:
                return
            self.stopping = True  # and it stays so if the caller's code raises: nobody calls that again
            self._deliver(completions)
            request = next(self.requests, None)
            self.stopping = False

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._report()

    def _report(self) -> None:
        self.stats.seconds = time.monotonic() - self.started
        self.stats.up = sum(replica.up for replica in self.pool.replicas)
        if self.on_tick is not None:
            self.on_tick(self.stats)

    def _deliver(self, completions: list[Completion]) -> None:
        for completion in completions:
            self._count(completion)
        self.on_result(completions)
        if completions[0].error is None:
            self.failed_in_a_row.clear()
            return
        self.failed_in_a_row.append(completions[0].error)
        if len(self.failed_in_a_row) >= self.config.max_permanent_in_a_row:
            last = "\n  ".join(self.failed_in_a_row[-5:])
            raise TooManyFailures(
                f"{len(self.failed_in_a_row)} requests in a row failed; the last errors were\n  {last}"
            )

    def _count(self, completion: Completion) -> None:
        stats = self.stats
        stats.done += 1
        if completion.num_generated_tokens is None:
            self._say_uncounted(completion)
        stats.generated_tokens += completion.num_generated_tokens or 0
        if completion.choice == 0:
            stats.prompt_tokens += completion.num_prompt_tokens or 0
        if completion.error is not None:
            stats.errors += 1
        elif completion.attempts and (flaw := content_class(completion.text, completion.finish_reason)) != OK:
            stats.flawed[flaw] += 1

    def _say_uncounted(self, completion: Completion) -> None:
        self.stats.uncounted += 1
        if self.stats.uncounted == 1:
            log.warning("%s does not count the tokens of its completions, so they are left open", completion.replica)

    async def _trace(self, request: Request) -> list[Completion]:
        if self.loop is None:
            return await self._complete(request)

        async def send(segment: Request) -> Completion:
            completion = (await self._complete(segment))[0]
            if completion.error is None and None in (completion.num_prompt_tokens, completion.num_generated_tokens):
                raise Refused(
                    f"{completion.replica} does not count tokens (`usage` in its replies), and what runs code or goes on "
                    "from its own text needs the counts to end at its limit. Use another server for it",
                    "bad_reply",
                )
            return completion

        return [await self.loop(request, send)]

    async def _complete(self, request: Request) -> list[Completion]:
        """Attempts until one succeeds, the request is refused, or none are left.

        Raises:
            Refused: it is not this request's fault.
            ServerBusy: patience_s is not enough for what servers ask.
        """
        if request.rendered and self.encode is not None and isinstance(request.prompt, str):
            request = replace(request, prompt_ids=self.encode(request.prompt))
        started = time.monotonic()
        last: Replica | None = None
        number, asked_to_wait, waited_s = 0, 0, 0.0
        while True:
            number += 1
            replica, result = await self._attempt(request, last, started, number)
            if isinstance(result, list):
                return result
            if result.fatal:
                raise Refused(f"{replica.endpoint.url}: {result.message}", result.kind)
            if not result.retry or number - asked_to_wait == self.config.max_attempts:
                seconds = time.monotonic() - started
                return [
                    Completion(key, "", None, 0, 0, seconds, result.message, number, result.kind, result.retry)
                    for key in request.keys
                ]
            last = replica
            self.stats.retries[result.kind] += 1
            wait_s = self._backoff(number - asked_to_wait, result)
            if result.retry_after_s > 0:
                asked_to_wait += 1
                waited_s += wait_s
                check_patience(
                    replica.endpoint.url, result.message, result.retry_after_s, waited_s, self.config.patience_s
                )
            await asyncio.sleep(wait_s)

    async def _attempt(
        self, request: Request, avoid: Replica | None, started: float, number: int
    ) -> tuple[Replica, list[Completion] | Failure]:
        async def at(replica: Replica) -> list[Completion] | Failure:
            sent = time.monotonic()
            try:
                result = await attempt(request, replica, started, number)
            finally:
                self.pool.release(replica)
            if isinstance(result, list):
                self.pool.answered(replica)
            else:
                self.pool.failed(replica, result, sent)
            return result

        replica = await self.pool.acquire(avoid)
        if self.config.hedge_after_s is None:
            return replica, await at(replica)
        return replica, await first_answer(at, replica, self.pool, self.config.hedge_after_s)

    def _backoff(self, number: int, failure: Failure) -> float:
        """Doubling, with jitter so that requests that failed together do not come back together; at least what was
        asked for."""
        wait = min(self.config.backoff_s * 2 ** (max(number, 1) - 1), MAX_BACKOFF_S) * random.uniform(0.5, 1.5)
        return max(wait, failure.retry_after_s)
