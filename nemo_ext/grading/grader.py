"""Grades many pairs: rules first, computer algebra in worker processes that a pair may stall or kill.

    with Grader(processes=2) as grader:
        for verdict in grader.grade([("0.5", r"\\frac{1}{2}"), (None, "3")]):
            ...

No process starts and no sympy is imported until a pair needs them.
"""

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from nemo_ext.grading.algebra.math_verify import AlgebraWorker
from nemo_ext.grading.graders import rule_of
from nemo_ext.grading.verdict import Verdict

TIMEOUT_S = 1.0
_PAIRS_AHEAD = 256  # per process: how far grade() reads ahead of the verdict it yields next
_MAX_CACHED = 1_000_000

Pair = tuple[str | None, str]


class Grader:
    """Equality of answers, with the cost of a bad pair bounded.

    processes: worker processes for computer algebra. timeout_s: CPU seconds one pair may take. memory_gb: address
    space of a worker. name: one of graders.NAMES. A pair over either limit is UNDECIDED and costs no other pair its
    verdict. Thread-safe.
    """

    def __init__(
        self, processes: int = 1, timeout_s: float = TIMEOUT_S, memory_gb: float = 4, name: str = "default"
    ) -> None:
        if processes < 1 or timeout_s <= 0 or memory_gb <= 0:
            got = f"processes={processes}, timeout_s={timeout_s}, memory_gb={memory_gb}"
            raise ValueError(f"Grader: every limit must be above 0, got {got}")
        self._rule = rule_of(name)
        self._both_ways = name == "default"  # math-verify alone judges as others' pipelines have it, one way
        self._timeout_s = timeout_s
        self._ahead = _PAIRS_AHEAD * processes
        self._pool = ThreadPoolExecutor(processes, thread_name_prefix="grader")
        self._workers = [AlgebraWorker(memory_gb) for _ in range(processes)]
        self._idle: queue.SimpleQueue[AlgebraWorker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._cache: dict[tuple[str, str], Verdict | Future[Verdict]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is queued, wait for the pairs in work (at most their limit), end the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def grade(self, pairs: Iterable[Pair]) -> Iterator[Verdict]:
        """One verdict per (predicted, expected), in order, reading a bounded number of pairs ahead."""
        window: deque[tuple[Pair, Verdict | Future[Verdict]]] = deque()
        for pair in pairs:
            window.append((pair, self._begin(pair)))
            while window and (len(window) > self._ahead or _is_ready(window[0][1])):
                yield self._finish(*window.popleft())
        while window:
            yield self._finish(*window.popleft())

    def verdict(self, predicted: str | None, expected: str) -> Verdict:
        """The verdict on one pair."""
        return self._finish((predicted, expected), self._begin((predicted, expected)))

    def _begin(self, pair: Pair) -> Verdict | Future[Verdict]:
        predicted, expected = pair
        fast = self._rule(predicted, expected)
        if fast is not None:
            return fast
        assert predicted is not None, "every rule decides a missing answer"
        known = self._cache.get((predicted, expected))
        if known is None:
            if len(self._cache) >= _MAX_CACHED:
                del self._cache[next(iter(self._cache))]
            known = self._pool.submit(self._ask, predicted, expected)
            self._cache[predicted, expected] = known
        return known

    def _finish(self, pair: Pair, outcome: Verdict | Future[Verdict]) -> Verdict:
        if isinstance(outcome, Verdict):
            return outcome
        verdict = outcome.result()
        if (key := (pair[0] or "", pair[1])) in self._cache:
            self._cache[key] = verdict  # a Future takes several times the memory
        return verdict

    def _ask(self, predicted: str, expected: str) -> Verdict:
        worker = self._idle.get()
        try:
            return worker.ask(predicted, expected, self._timeout_s, both_ways=self._both_ways)
        finally:
            self._idle.put(worker)


def _is_ready(outcome: Verdict | Future[Verdict]) -> bool:
    return isinstance(outcome, Verdict) or outcome.done()


def grade_pairs(pairs: Iterable[Pair], grader: str = "default", workers: int = 2) -> list[Verdict]:
    """A verdict for every (prediction, reference), in order; a prediction may be None.

    Args:
        grader: one of graders.NAMES.
        workers: processes for the pairs that need computer algebra; none starts where no pair does.

    Raises:
        ValueError: no grader of this name, or no worker.
    """
    with Grader(workers, name=grader) as found:
        return list(found.grade(pairs))
