"""This machine: every task's processes as children, with logs, readiness, and nothing left behind.

One main process per rank and the services it needs. A service that dies fails its task, a main that ends stops its
services, and Ctrl-C (or SIGTERM) stops everything that was started.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar

import psutil

from launchers.cluster import Cluster
from launchers.display import Display
from launchers.plan import PlannedStage, Task
from nemo_ext.files import write_json_atomic
from nemo_ext.gpus import list_devices
from nemo_ext.megatron.preemption import EXIT_PREEMPTED
from recipes.stage import Process

POLL_S = 0.1
STOP_S = 15.0
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(kw_only=True)
class Config(Cluster):
    executor: str = "local"
    parallel_tasks: int = 2
    """Shards or variants of one stage that run at once."""
    gpus: int | None = None
    """GPUs of this machine; None: ask nvidia-smi."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of every process."""

    runs_here: ClassVar[bool] = True

    @property
    def tasks_at_once(self) -> int:
        return self.parallel_tasks


class TaskFailed(RuntimeError):
    """A task ended badly; the message is for the user."""


def gpus(config: Config) -> int:
    """GPUs that processes here can use; 0 without a working nvidia-smi."""
    if config.gpus is not None:
        return config.gpus
    return len(list_devices())


def _devices(config: Config) -> list[str]:
    """The GPUs here, as CUDA_VISIBLE_DEVICES names them."""
    visible = config.env.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    return visible.split(",")[: gpus(config)] if visible else [str(index) for index in range(gpus(config))]


def check(config: Config, stages: list[PlannedStage]) -> None:
    """Raises ValueError when this machine lacks the GPUs or the nodes a stage needs."""
    needy = [stage for stage in stages if stage.resources.gpus or stage.resources.nodes > 1]
    if not needy:
        return
    most = max(needy, key=lambda stage: (stage.resources.nodes, stage.resources.gpus))
    found = gpus(config)
    if most.resources.nodes > 1 or most.resources.gpus > found:
        raise ValueError(
            f"stage {most.name} needs {most.resources.nodes} node(s) x {most.resources.gpus} GPUs; this machine "
            f"(cluster=local) is 1 node with {found}. Two ways on: cluster=<name of a file in conf/cluster> to run where "
            "they are, or +scale=tiny to run the same recipe here on the CPU."
        )


def submit(config: Config, stages: list[PlannedStage], display: Display) -> None:
    """Run the stages in order.

    Raises:
        TaskFailed: the first task that failed, with its last words; what it had done is kept for the rerun.
    """
    for stage in stages:
        _run_stage(config, stage, display)


def _run_stage(config: Config, stage: PlannedStage, display: Display) -> None:
    waiting = [task for task in stage.tasks if task.why_not_done()]
    running: list[RunningTask] = []
    needed = stage.resources.gpus
    idle = _devices(config) if needed else []
    folders = [task.folder for task in stage.tasks]
    display.begin(stage.name, resumed=any((task.folder / "logs").exists() for task in waiting))
    ended: list[Path] | None = None
    try:
        while waiting or running:
            while waiting and len(running) < config.parallel_tasks and len(idle) >= needed:
                running.append(RunningTask(waiting.pop(0), config, idle[:needed]))
                del idle[:needed]
            for run in [task for task in running if task.ended()]:
                running.remove(run)
                idle += run.devices
            display.beat([run.task.folder for run in running], len(folders) - len(waiting) - len(running))
            time.sleep(POLL_S)
        ended = folders
    finally:
        for run in running:
            run.stop()
        display.end(ended)


class RunningTask:
    """The processes of one task."""

    def __init__(self, task: Task, config: Config, devices: list[str]) -> None:
        self.task = task
        self.devices = devices
        """The GPUs that are this task's alone while it runs."""
        self.started = time.monotonic()
        self.peak_memory = 0
        self.last_sample = 0.0
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.ranks: list[subprocess.Popen[bytes]] = []
        (task.folder / "logs").mkdir(parents=True, exist_ok=True)
        try:
            for process in task.processes:
                self._start(process, config)
        except BaseException:
            self.stop()
            raise

    def _start(self, process: Process, config: Config) -> None:
        argv = [sys.executable, *process.argv[1:]] if process.argv[0] == "python" else process.argv
        base = {**os.environ, **config.env, "LAUNCHER_PID": str(os.getpid())}
        if self.devices:
            base["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices)
        else:  # megatron-core imports torch's compiler, nearly 2 s a process, for kernels that a CPU does not run
            base.setdefault("TORCHDYNAMO_DISABLE", "1")
        base.setdefault("OMP_NUM_THREADS", "1")  # several processes share the cores: more threads only spin
        if process.service:
            if process.ready_file:
                Path(process.ready_file).unlink(missing_ok=True)
            with self._log(process.name) as log:
                self.services[process.name] = _popen(argv, base, log)
            return
        port = str(_free_port())
        for rank in range(process.ranks):
            env = base | {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(process.ranks),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            with self._log(process.name if process.ranks == 1 else f"{process.name}-{rank}") as log:
                self.ranks.append(_popen(argv, env, log))

    def _log(self, name: str) -> IO[bytes]:
        return (self.task.folder / "logs" / f"{name}.log").open("ab")

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
        total = 0
        for child in [*self.ranks, *self.services.values()]:
            try:
                parent = psutil.Process(child.pid)
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


def _popen(argv: list[str], env: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # its own session, so that Ctrl-C reaches the launcher alone and the launcher decides the order of stopping
    return subprocess.Popen(
        argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _tail(path: Path, lines: int = 12) -> str:
    text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
    return f"Last lines of {path}:\n  " + "\n  ".join(text)
