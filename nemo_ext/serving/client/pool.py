"""The servers of one run: which are up, and which takes the next request."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.failures import Failure, ServersDown
from nemo_ext.serving.client.replica import Replica

log = logging.getLogger(__name__)

MAX_RECENT_ERRORS = 8
WORTH_SAYING_S = 10.0
MISSES = 3  # health checks in a row that a busy server may miss


class Pool:
    """Hands out the least busy replica; those that fail leave until they answer again.

    A replica leaves when a connection to it fails, when its /health misses MISSES checks, or when it has answered
    nothing for `stall_s` although requests are open there; these are then ended, to go elsewhere.
    """

    def __init__(self, endpoints: list[Endpoint], config: ClientConfig) -> None:
        self.config = config
        self.replicas = [Replica(endpoint, config) for endpoint in endpoints]
        self.recent_errors: list[str] = []
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._down: ServersDown | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._start(self._watch())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def acquire(self, avoid: Replica | None) -> Replica:
        """The least busy replica with room, not `avoid` if there is another; `release` gives it back.

        Raises:
            ServersDown: none was up for all_down_s.
        """
        while (chosen := self.try_acquire(avoid)) is None:
            if self._down is not None:
                raise self._down
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self._wake(1)  # the turn that came with the cancellation is somebody else's
                raise
        return chosen

    def try_acquire(self, avoid: Replica | None, another: bool = False) -> Replica | None:
        """`another`: never `avoid` itself."""
        free = [replica for replica in self.replicas if replica.free]
        others = [replica for replica in free if replica is not avoid]
        candidates = others if others or another else free
        chosen = min(candidates, key=lambda replica: replica.load, default=None)
        if chosen is not None:
            chosen.begin()
        return chosen

    def release(self, replica: Replica) -> None:
        replica.in_flight -= 1
        self._wake(1)

    def _wake(self, count: int) -> None:
        while count and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def answered(self, replica: Replica) -> None:
        replica.last_reply = time.monotonic()
        replica.told_to_wait = False
        replica.num_answered += 1
        before = int(replica.concurrency.limit)
        replica.concurrency.succeeded()
        if int(replica.concurrency.limit) > before:
            self._wake(1)

    def failed(self, replica: Replica, failure: Failure, sent: float) -> None:
        """Remember the error; take a suspect replica out until it is healthy again."""
        self._note(replica, failure.message)
        if failure.retry_after_s >= WORTH_SAYING_S and not replica.told_to_wait:
            replica.told_to_wait = True
            log.warning(
                "%s asks to be left alone for %.0f s: %s", replica.endpoint.url, failure.retry_after_s, failure.message
            )
        if failure.overload:
            replica.concurrency.overloaded(sent)
        if failure.suspect:
            self._eject(replica, failure.message)
        elif failure.kind != "timeout":
            replica.last_reply = time.monotonic()

    def _note(self, replica: Replica, message: str) -> None:
        text = f"{replica.endpoint.url}: {message}"
        if text in self.recent_errors:  # health checks say the same again and again
            self.recent_errors.remove(text)
        self.recent_errors.append(text)
        del self.recent_errors[:-MAX_RECENT_ERRORS]

    def _eject(self, replica: Replica, why: str) -> None:
        if not replica.up:
            return
        replica.up = False
        log.warning("%s is out until it answers again: %s", replica.endpoint.url, why)
        if not any(other.up for other in self.replicas):
            self._start(self._give_up(time.monotonic()))
        self._start(self._readmit(replica))

    async def _give_up(self, since: float) -> None:
        """Unless a replica came back, everybody who waits stops after all_down_s."""
        while time.monotonic() - since < self.config.all_down_s:
            await asyncio.sleep(min(1.0, self.config.all_down_s / 10))
            if any(replica.up for replica in self.replicas):
                return
        errors = "\n  ".join(self.recent_errors)
        self._down = ServersDown(
            f"no server has answered for {self.config.all_down_s:g} s; the last errors were\n  {errors}"
        )
        self._wake(len(self._waiters))

    async def _readmit(self, replica: Replica) -> None:
        while (why := await replica.why_not_healthy()) is not None:
            self._note(replica, why)
            await asyncio.sleep(self.config.backoff_s * random.uniform(0.8, 1.2))
        replica.up, replica.stalled, replica.last_reply = True, False, time.monotonic()
        log.warning("%s answers again", replica.endpoint.url)
        self._wake(max(0, int(replica.concurrency.limit) - replica.in_flight))

    async def _watch(self) -> None:
        """A server may hang without dying: its connections stay open and nothing comes."""
        misses = dict.fromkeys(self.replicas, 0)
        while True:
            await asyncio.sleep(self.config.health_interval_s)
            for replica in self.replicas:
                quiet = time.monotonic() - replica.last_reply
                if not (replica.up and replica.in_flight and quiet > self.config.health_interval_s):
                    misses[replica] = 0
                    continue
                why = await replica.why_not_healthy()
                misses[replica] = 0 if why is None else misses[replica] + 1
                if misses[replica] >= MISSES:
                    await self._hung(replica, f"{MISSES} health checks failed; the last: {why}")
                elif quiet > self.config.stall_s:
                    replica.stalled = True
                    await self._hung(
                        replica, f"{replica.in_flight} requests are open and none was answered in {quiet:.0f} s"
                    )

    async def _hung(self, replica: Replica, why: str) -> None:
        self._note(replica, why)
        self._eject(replica, why)
        await replica.hang_up()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in self.replicas:
            await replica.close()
