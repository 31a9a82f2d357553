"""Start one Python process per rank, as the launcher would, and end them by pid.

    results = run_ranks(2, "tests.nemo_ext.megatron.programs", "parity", {"folder": "..."})

Each rank imports the module and calls `function(argument)`; the JSON-able return values come back, one per rank.
Run as a program (`python ranks.py MODULE FUNCTION`), this file is one rank; its argument is on stdin.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RESULT = "RANK RESULT "


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_ranks(
    size: int, module: str, function: str, argument: Any, env: dict[str, str] | None = None
) -> list[subprocess.Popen[str]]:
    """The running processes; pass them to `join_ranks` or kill them."""
    port = str(free_port())
    processes = []
    for rank in range(size):
        rank_env = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **(env or {}),
        }
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), module, function],
            env=rank_env,
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
        processes.append(process)
    return processes


def join_ranks(processes: list[subprocess.Popen[str]], timeout_s: float = 150.0) -> list[Any]:
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


def kill_ranks(processes: list[subprocess.Popen[str]], signal_number: int = signal.SIGKILL) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal_number)
            process.wait()


def run_ranks(size: int, module: str, function: str, argument: Any, timeout_s: float = 150.0) -> list[Any]:
    return join_ranks(start_ranks(size, module, function, argument), timeout_s)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # this folder holds tests, not modules
    outcome = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(json.load(sys.stdin))
    sys.stdout.write(RESULT + json.dumps(outcome))
    sys.stdout.flush()
