"""Start one Python process per rank, as the launcher would, and end them by pid.

    results = run_ranks(2, "tests.nemo_ext.megatron.programs", "parity", {"folder": "..."})

Each rank imports the module and calls `function(argument)`; the JSON-able return values come back, one per rank.
Importing torch and megatron-core takes six seconds of a core, so that without a GPU ranks are forked from a process
that has done it; with one, or where the start itself is what is looked at (`fresh`), they are interpreters of their own:
run as a program (`python ranks.py MODULE FUNCTION`), this file is one rank; its argument is on stdin.
"""

import gc
import importlib
import json
import multiprocessing
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from nemo_ext.machine.process import die_with_parent

ROOT = Path(__file__).resolve().parents[3]
RESULT = "RANK RESULT "
TIMEOUT_S = 270.0  # a test has 300 at most; the longest launch takes 40 on a quiet machine

TOPOLOGIES_OF_TWO: dict[str, dict[str, Any]] = {
    "tensor": {"tp": 2},
    "sequence": {"tp": 2, "sequence_parallel": True},
    "pipeline": {"pp": 2},
    "virtual pipeline": {"pp": 2, "vp": 2},
    "context": {"cp": 2},
    "data": {"dp": 2},
}
"""Every way of splitting a training over two processes, as `programs.sizes` takes them."""


def free_port() -> int:
    """Below those that the kernel hands out: until rank 0 listens, seconds later, servers and clients beside take many."""
    handed_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = secrets.choice(range(10_000, max(handed_out, 11_000)))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Forked:
    """A forked rank, with what the tests use of Popen."""

    def __init__(self, env: dict[str, str], module: str, function: str, argument: Any) -> None:
        self._files = [tempfile.TemporaryFile("w+") for _ in ("out", "err")]  # noqa: SIM115 - read at the end
        paths = [f"/proc/{os.getpid()}/fd/{each.fileno()}" for each in self._files]
        self._process = _FORKS.Process(target=_forked, args=(env, paths, module, function, argument))
        self._process.start()
        self._lock = threading.Lock()  # its exit code can be read once

    def poll(self) -> int | None:
        with self._lock:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended, as Popen: another thread may read its exit code between a poll and this."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def wait(self) -> None:
        while self.poll() is None:
            time.sleep(0.02)

    def communicate(self) -> tuple[str, str]:
        self.wait()
        texts = []
        for each in self._files:
            with each:
                each.seek(0)
                texts.append(each.read())
        return texts[0], texts[1]


Rank = subprocess.Popen[str] | Forked


def _fork_server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.nemo_ext.megatron.programs"])
    return context


_FORKS = _fork_server()


def _forked(env: dict[str, str], outputs: list[str], module: str, function: str, argument: Any) -> None:
    die_with_parent(signal.SIGKILL)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_RDWR), number)
    os.environ.update(env)
    gc.freeze()  # each save collects garbage: not among all that was imported
    _run(module, function, argument)


def _run(module: str, function: str, argument: Any) -> None:
    outcome = getattr(importlib.import_module(module), function)(argument)
    sys.stdout.write(RESULT + json.dumps(outcome))
    sys.stdout.flush()


def start_ranks(
    size: int, module: str, function: str, argument: Any, env: dict[str, str] | None = None, fresh: bool = False
) -> list[Rank]:
    """The running processes; pass them to `join_ranks` or kill them."""
    place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes: list[Rank] = []
    for rank in range(size):
        rank_env = {"RANK": str(rank), "LOCAL_RANK": str(rank), **place, **(env or {})}
        if fresh or torch.cuda.is_available():
            processes.append(_interpreter(rank_env, module, function, argument))
        else:
            processes.append(Forked(rank_env, module, function, argument))
    return processes


def _interpreter(env: dict[str, str], module: str, function: str, argument: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), module, function],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env},
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(argument))
    process.stdin.close()
    process.stdin = None
    return process


def join_ranks(processes: list[Rank], timeout_s: float = TIMEOUT_S) -> list[Any]:
    """Every rank's result. Raises AssertionError with the outputs when one failed; nothing is left running."""
    deadline = time.monotonic() + timeout_s
    with ThreadPoolExecutor(len(processes)) as pool:
        outputs = [pool.submit(process.communicate) for process in processes]
        while time.monotonic() < deadline and not any(p.poll() for p in processes):
            if all(p.poll() == 0 for p in processes):
                break
            time.sleep(0.02)
        codes = [process.poll() for process in processes]  # None: still waiting for a rank that failed, or hung
        kill_ranks(processes)
    texts = [output.result() for output in outputs]
    report = "\n".join(f"rank {i} ended with {codes[i]}:\n{err[-4000:]}" for i, (_, err) in enumerate(texts))
    assert codes == [0] * len(processes), report
    return [json.loads(out.rsplit(RESULT, 1)[1]) for out, _ in texts]


def kill_ranks(processes: list[Rank], signal_number: int = signal.SIGKILL) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal_number)
            process.wait()


def run_ranks(size: int, module: str, function: str, argument: Any, timeout_s: float = TIMEOUT_S) -> list[Any]:
    return join_ranks(start_ranks(size, module, function, argument), timeout_s)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder holds tests, not modules
    _run(sys.argv[1], sys.argv[2], json.load(sys.stdin))
