"""Grades many pairs: cheap rules first, computer algebra in worker processes that a pair may stall or kill.

    with Grader(processes=2, timeout_s=5) as grader:
        for verdict in grader.grade([("0.5", r"\\frac{1}{2}"), (None, "3")]):
            ...

No process starts and no sympy is imported until a pair needs them.
"""

import json
import queue
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from nemo_ext.grading.rules import DIFFERENT, EQUAL, UNDECIDED, Verdict, fast_verdict

_WORKER = Path(__file__).with_name("worker.py")
_START_LIMIT_S = 120.0  # importing sympy takes 0.6 s on a quiet machine, and graders start on busy ones
_WALL_PER_CPU = 6.0  # the limit is CPU time, so that a busy machine changes no verdict; this bounds the wait
_PAIRS_AHEAD = 64  # per process: how far grade() reads ahead of the verdict it yields next
_MAX_CACHED = 1_000_000

Pair = tuple[str | None, str]


class _Worker:
    """One process, started at its first question and again after it died."""

    def __init__(self, memory_gb: float) -> None:
        # -P keeps nemo_ext/grading off sys.path, where its modules could shadow a library's.
        self._argv = [sys.executable, "-P", str(_WORKER), str(int(memory_gb * 2**30))]
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, predicted: str, expected: str, timeout_s: float) -> Verdict:
        process = self._process or self._start()
        assert process.stdin is not None, "the worker was started with a pipe"
        try:
            process.stdin.write(json.dumps([predicted, expected, timeout_s]).encode() + b"\n")
            reply = _read_line(process, timeout_s * _WALL_PER_CPU)
        except BrokenPipeError:  # killed between two pairs (out of memory, say)
            reply = b""
        if not reply.endswith(b"\n"):
            self.stop()
            return Verdict(UNDECIDED, "stalled_or_died")
        answer = json.loads(reply)
        if "error" in answer:
            return Verdict(UNDECIDED, "error")
        return Verdict(EQUAL if answer["equal"] else DIFFERENT, "math_verify")

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        if _read_line(self._process, _START_LIMIT_S) != b'"ready"\n':
            self.stop()
            raise RuntimeError(f"the grading worker did not start: {' '.join(self._argv)} (its error is above)")
        return self._process

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "the worker was started with pipes"
            pipe.close()
        self._process.wait()
        self._process = None


def _read_line(process: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """The worker's next line; b"" when it ended or said nothing in time. It writes a line in one piece."""
    assert process.stdout is not None, "the worker was started with a pipe"
    ready, _, _ = select.select([process.stdout], [], [], limit_s)
    return process.stdout.readline() if ready else b""


class Grader:
    """Equality of answers, with the cost of a bad pair bounded.

    processes: worker processes for computer algebra. timeout_s: CPU seconds one pair may take. memory_gb: address
    space of a worker. A pair over either limit is UNDECIDED and costs no other pair its verdict. Thread-safe.
    """

    def __init__(self, processes: int = 1, timeout_s: float = 5, memory_gb: float = 4) -> None:
        if processes < 1 or timeout_s <= 0 or memory_gb <= 0:
            got = f"processes={processes}, timeout_s={timeout_s}, memory_gb={memory_gb}"
            raise ValueError(f"Grader: every limit must be above 0, got {got}")
        self._timeout_s = timeout_s
        self._ahead = _PAIRS_AHEAD * processes
        self._pool = ThreadPoolExecutor(processes, thread_name_prefix="grader")
        self._workers = [_Worker(memory_gb) for _ in range(processes)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
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
        """One verdict per (predicted, expected), in order, reading at most 64 pairs per process ahead."""
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
        fast = fast_verdict(predicted, expected)
        if fast is not None:
            return fast
        assert predicted is not None, "fast_verdict decides a missing answer"
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
            return worker.ask(predicted, expected, self._timeout_s)
        finally:
            self._idle.put(worker)


def _is_ready(outcome: Verdict | Future[Verdict]) -> bool:
    return isinstance(outcome, Verdict) or outcome.done()
