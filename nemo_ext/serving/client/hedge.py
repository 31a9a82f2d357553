"""The same request at two servers, for the stragglers at the end of a run: the first answer counts."""

import asyncio
from collections.abc import Awaitable, Callable

from nemo_ext.serving.client.failures import Failure
from nemo_ext.serving.client.pool import Pool
from nemo_ext.serving.client.replica import Replica
from nemo_ext.serving.client.requests import Completion

Answer = list[Completion] | Failure


async def first_answer(
    send: Callable[[Replica], Awaitable[Answer]], replica: Replica, pool: Pool, after_s: float
) -> Answer:
    """What `replica` says, or, when that takes more than `after_s` and another one has room, whoever succeeds first.

    The slower one's connection is closed, which frees its slot at the server.
    """
    running = {asyncio.ensure_future(send(replica))}
    try:
        done, running = await asyncio.wait(running, timeout=after_s)
        if not done and (second := pool.try_acquire(avoid=replica, another=True)) is not None:
            running.add(asyncio.ensure_future(send(second)))
        while True:
            for task in done:
                if isinstance(task.result(), list) or not running:
                    return task.result()
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
