"""Many batches through worker processes, results in the order of the batches."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import cycle
from typing import Any, TypeVar

from nemo_ext.machine.process import die_with_parent

Batch = TypeVar("Batch")
Result = TypeVar("Result")
AHEAD = 2  # batches per worker that are read before the result of the first is taken: one in work, one waiting


def ordered_map(
    make: Callable[[], Callable[[Batch], Result]], batches: Iterable[Batch], workers: int
) -> Iterator[tuple[Batch, Result]]:
    """(batch, function(batch)) for each, in order; `function` is what `make` returns in each of `workers` processes.

    At most AHEAD * workers batches are in memory. `make`, the batches and the results travel by pickle between these
    processes alone; the workers are fresh interpreters and end with this one, however it ends.

    Raises:
        RuntimeError: a worker was killed. What `function` raises comes through, at its batch.
    """
    # A pool of one each: a pool of several starts its workers one by one, and when one is killed meanwhile, it hangs
    # (its thread fails with "dictionary changed size during iteration", Python 3.11).
    context, start = multiprocessing.get_context("spawn"), (os.getpid(), make)
    pools = [ProcessPoolExecutor(1, context, initializer=_start, initargs=start) for _ in range(workers)]
    waiting: deque[tuple[Batch, Future[Result]]] = deque()
    try:
        for pool, batch in zip(cycle(pools), batches, strict=False):
            waiting.append((batch, pool.submit(_call, batch)))
            if len(waiting) >= AHEAD * workers:
                yield _finish(*waiting.popleft())
        while waiting:
            yield _finish(*waiting.popleft())
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of {workers} worker processes ended without a word: it was killed, most often because memory ran "
            "out (see dmesg, or the scheduler's record of the job). Ask for more memory or set fewer workers."
        ) from error
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _finish(batch: Batch, result: Future[Result]) -> tuple[Batch, Result]:
    return batch, result.result()


_function: Callable[[Any], Any]


def _start(parent: int, make: Callable[[], Callable[[Any], Any]]) -> None:
    global _function
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it ended while this process imported what `make` needs
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends us
    _function = make()


def _call(batch: Any) -> Any:
    return _function(batch)


def available_cores() -> int:
    """Cores this process may run on, which a batch system may have made fewer than the machine has."""
    return len(os.sched_getaffinity(0))
