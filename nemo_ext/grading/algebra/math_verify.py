"""math-verify's verdict on a pair, from a process that a pair may stall or kill."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

_WORKER = Path(__file__).with_name("worker.py")
_START_LIMIT_S = 120.0  # importing sympy takes 0.7 s on a quiet machine, and graders start on busy ones
_WALL_PER_CPU = 12.0  # the limit is CPU time, so that a busy machine changes no verdict; this bounds the wait


class AlgebraWorker:
    """One process, started at its first question and again after it died."""

    def __init__(self, memory_gb: float) -> None:
        # -P keeps nemo_ext/grading off sys.path, where its modules could shadow a library's.
        self._argv = [sys.executable, "-P", str(_WORKER), str(int(memory_gb * 2**30))]
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, predicted: str, expected: str, timeout_s: float, *, both_ways: bool) -> Verdict:
        """UNDECIDED when the pair took more CPU time or memory than it may, or broke the library; with `both_ways` also
        when the verdict is another with the answers exchanged, or one of them cannot be read.

        Raises:
            RuntimeError: the process does not start.
        """
        process = self._process or self._start()
        assert process.stdin is not None, "the worker was started with a pipe"
        try:
            process.stdin.write(json.dumps([predicted, expected, timeout_s, both_ways]).encode() + b"\n")
            reply = _read_line(process, timeout_s * _WALL_PER_CPU)
        except BrokenPipeError:  # killed between two pairs (out of memory, say)
            reply = b""
        if not reply.endswith(b"\n"):
            self.stop()
            return Verdict(UNDECIDED, "stalled_or_died")
        answer = json.loads(reply)
        if "died" in answer:
            return Verdict(UNDECIDED, "stalled_or_died")
        if "error" in answer:
            return Verdict(UNDECIDED, "error")
        if "undecided" in answer:
            return Verdict(UNDECIDED, answer["undecided"])
        return Verdict(EQUAL if answer["equal"] else DIFFERENT, "math_verify")

    def _start(self) -> subprocess.Popen[bytes]:
        # a session of its own, so that it and its fork end together
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        if _read_line(self._process, _START_LIMIT_S) != b'"ready"\n':
            self.stop()
            raise RuntimeError(f"the grading worker did not start: {' '.join(self._argv)} (its error is above)")
        return self._process

    def stop(self) -> None:
        """End the process, at once."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.poll()  # it has ended already
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
