"""The processes of one task on this machine: started, watched, and nothing of them left behind.

One main process per rank and the services it needs. A service that dies fails its task, a main that ends stops its
services. What a process's command line is (bare, in docker, in enroot) is the executor's to say, as `Runtime`.
"""

import json
import shlex
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from launchers.following import log_files
from launchers.planning.plan import PlannedStage, Task
from nemo_ext.machine.parent import die_with_parent
from nemo_ext.megatron.runtime.preemption import EXIT_PREEMPTED
from nemo_ext.records.files import write_json_atomic
from recipes.stage import Process

STOP_S = 15.0
ROOT = Path(__file__).resolve().parents[2]


class TaskFailed(RuntimeError):
    """A task ended badly; the message is for the user."""


@dataclass(frozen=True)
class Place:
    """One rank of a process: its number, its GPUs, and where its process group meets."""

    rank: int = 0
    devices: tuple[str, ...] = ()
    """The GPUs that are its task's alone, as CUDA_VISIBLE_DEVICES names them."""
    port: int = 0


@dataclass(frozen=True)
class Command:
    argv: list[str]
    env: dict[str, str]
    """The whole environment of the program `argv[0]`."""


class Runtime(ABC):
    """How an executor starts one rank of a process here."""

    shows_commands = False
    """Whether a log begins with the command that wrote it."""

    @abstractmethod
    def command(self, stage: PlannedStage, task: Task, process: Process, place: Place) -> Command: ...

    def pids(self, task: Task, started: list[int]) -> list[int]:
        """Roots of the process trees that do a task's work; `started` are those of the commands themselves."""
        return started

    @abstractmethod
    def clear(self, task: Task) -> None:
        """Take away what a task's commands may have left when they were stopped."""


def rank_variables(process: Process, place: Place) -> dict[str, str]:
    """What torch.distributed reads; nothing for a service."""
    if process.service:
        return {}
    return {
        "RANK": str(place.rank), "LOCAL_RANK": str(place.rank), "WORLD_SIZE": str(process.ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(place.port),
    }  # fmt: skip


def tuning(env: Mapping[str, str], devices: tuple[str, ...]) -> dict[str, str]:
    """Settings that `env` does not have and every process here is better with."""
    wanted = {"OMP_NUM_THREADS": "1"}  # several processes share the cores: more threads only spin
    if not devices:
        # megatron-core imports torch's compiler, nearly 2 s a process, for kernels that a CPU does not run
        wanted["TORCHDYNAMO_DISABLE"] = "1"
    return {key: value for key, value in wanted.items() if key not in env}


class RunningTask:
    def __init__(self, stage: PlannedStage, task: Task, runtime: Runtime, devices: list[str]) -> None:
        self.task = task
        self.devices = devices
        """The GPUs that are this task's alone while it runs."""
        self.runtime = runtime
        self.started = time.monotonic()
        self.peak_memory = 0
        self.last_sample = 0.0
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.ranks: list[subprocess.Popen[bytes]] = []
        (task.folder / "logs").mkdir(parents=True, exist_ok=True)
        try:
            for process in task.processes:
                self._start(stage, process)
        except BaseException:
            self.stop()
            raise

    def _start(self, stage: PlannedStage, process: Process) -> None:
        devices = tuple(self.devices)
        if process.service:
            if process.ready_file:
                Path(process.ready_file).unlink(missing_ok=True)
            command = self.runtime.command(stage, self.task, process, Place(devices=devices))
            self.services[process.name] = self._popen(process.name, command)
            return
        port = _free_port()
        for rank in range(process.ranks):
            command = self.runtime.command(stage, self.task, process, Place(rank, devices, port))
            log = process.name if process.ranks == 1 else f"{process.name}-{rank}"
            self.ranks.append(self._popen(log, command))

    def _popen(self, name: str, command: Command) -> subprocess.Popen[bytes]:
        with (self.task.folder / "logs" / f"{name}.log").open("ab") as log:
            if self.runtime.shows_commands:
                log.write(f"$ {shlex.join(command.argv)}\n".encode())
                log.flush()
            return _popen(command, log)

    def ended(self) -> bool:
        """True when the task has finished well.

        Raises:
            TaskFailed: a rank or a service ended with an error.
        """
        self._sample_memory()
        codes = [rank.poll() for rank in self.ranks]
        if any(code not in (None, 0) for code in codes):
            self.stop()
            raise TaskFailed(self._why(codes))
        if all(code == 0 for code in codes):
            self.stop()
            usage = {"seconds": time.monotonic() - self.started, "peak_memory_bytes": self.peak_memory}
            write_json_atomic(self.task.folder / "usage.json", usage)
            return True
        for name, service in self.services.items():
            if service.poll() is not None:
                self.stop()
                tail = _tail(self.task.folder / "logs" / f"{name}.log")
                raise TaskFailed(f"{self.task.name}: service {name} ended with code {service.returncode}. {tail}")
        return False

    def _why(self, codes: list[int | None]) -> str:
        if EXIT_PREEMPTED in codes:
            return f"{self.task.name}: was asked to stop, and saved its state first (exit code {EXIT_PREEMPTED})"
        try:
            message = json.loads((self.task.folder / "error.json").read_text())["error"]
        except (FileNotFoundError, json.JSONDecodeError):
            rank = next(i for i, code in enumerate(codes) if code)
            name = "main" if len(codes) == 1 else f"main-{rank}"
            message = f"exit code {codes[rank]}. {_tail(self.task.folder / 'logs' / f'{name}.log')}"
        return f"{self.task.name}: {message}\n  logs: {self.task.folder / 'logs'}"

    def _sample_memory(self) -> None:
        if time.monotonic() - self.last_sample < 1.0:
            return
        self.last_sample = time.monotonic()
        started = [child.pid for child in [*self.ranks, *self.services.values()]]
        total = 0
        for pid in self.runtime.pids(self.task, started):
            try:
                parent = psutil.Process(pid)
                total += sum(p.memory_full_info().pss for p in [parent, *parent.children(recursive=True)])
            except psutil.Error:  # it ended between two looks
                continue
        self.peak_memory = max(self.peak_memory, total)

    def stop(self) -> None:
        """End whatever still runs: SIGTERM, and SIGKILL after STOP_S seconds."""
        alive = [p for p in [*self.ranks, *self.services.values()] if p.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.runtime.clear(self.task)


def _popen(command: Command, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # its own session, so that Ctrl-C reaches the launcher alone and the launcher decides the order of stopping; when the
    # launcher is killed, SIGTERM, which `docker run` passes on
    return subprocess.Popen(
        command.argv, cwd=ROOT, env=command.env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        start_new_session=True, preexec_fn=die_with_parent(signal.SIGTERM),
    )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _tail(path: Path, lines: int = 12) -> str:
    text = log_files.tail(path, lines) if path.exists() else []
    earlier = [line for line in log_files.errors(path, lines // 2) if line not in text] if text else []
    telling = f"Errors in {path}:\n  " + "\n  ".join(earlier) + "\n" if earlier else ""
    return f"{telling}Last lines of {path}:\n  " + "\n  ".join(text)
