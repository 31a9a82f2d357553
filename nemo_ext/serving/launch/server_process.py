"""A server in child processes: start it on a free port, wait until it is ready, pass signals on, report its end, and leave
none of its processes behind."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType

from omegaconf import OmegaConf

from nemo_ext.machine import group_guard, parent, ports
from nemo_ext.models.model import Model
from nemo_ext.records.files import write_text_atomic
from nemo_ext.serving.launch.tasks import Ports, Step, read_ports, write_ports
from nemo_ext.serving.server import GpuServer, Place, accepted_ids

log = logging.getLogger(__name__)

POLL_S = 0.2
PORTS_WAIT_S = 300.0
STOP_S = 10.0  # between the signal and the end of those that ignore it; less than executors give us
START_ATTEMPTS = 3  # ports another process may take between our look and the server's bind
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this node's own server, never a proxy


@dataclass(frozen=True)
class Serving:
    """A server that has become ready."""

    port: int
    model: str
    """The model's name as the server lists it."""
    version: str | None
    """None: it does not say."""


Announce = Callable[[Serving], None]


def run(
    module: ModuleType,
    server: GpuServer,
    model: Model,
    host: str,
    port: int,
    address_file: Path,
    step: Step,
    announce: Announce,
) -> int:
    """Run the server's only or first task: start, wait, announce, and return the exit code.

    Raises:
        TimeoutError: not ready within startup_timeout_s; its processes have been ended.
        ValueError: it serves another model, or its program is not here.
    """
    options = module.options(server, model)
    options_path, ports_path = _files(address_file, bool(options))
    if options_path is not None:
        write_text_atomic(options_path, OmegaConf.to_yaml(OmegaConf.create(options)))
    code = 1
    for attempt in range(START_ATTEMPTS if server.tasks == 1 else 1):
        chosen = Ports(ports.public(host), *ports.free_ports(host, port, 2))
        if server.tasks > 1:
            write_ports(ports_path, step, chosen)
        with _Processes(module, server, model, _place(host, chosen, options_path, step)) as processes:
            if attempt == 0:
                parent.exit_with_parent()
            if _wait_ready(processes, module.READY, host, chosen.port, server.startup_timeout_s):
                announce(
                    Serving(chosen.port, _model_id(model, host, chosen.port), _version(module, host, chosen.port))
                )
                return _failed_unless_asked(processes)
            code = _failed_unless_asked(processes)
        if processes.stopping or not ports.in_use(host, chosen.port):
            return code
        log.warning("port %d was taken before the server bound it; starting again on another", chosen.port)
    return code


def _failed_unless_asked(processes: "_Processes") -> int:
    """The exit code once it has ended; 1 where it says 0 and nobody asked it to end, as vLLM whose engine died."""
    code = processes.wait()
    if code == 0 and not processes.stopping:
        log.error(
            "the server ended by itself; it reports no failure (code 0), and the lines with ERROR above say more"
        )
        return 1
    return code


def join(module: ModuleType, server: GpuServer, model: Model, host: str, address_file: Path, step: Step) -> int:
    """Run the server's other tasks: each runs what the first one runs; returns the exit code.

    Raises:
        TimeoutError: the first task did not say which ports.
    """
    options_path, ports_path = _files(address_file, bool(module.options(server, model)))
    chosen = read_ports(ports_path, step, PORTS_WAIT_S)
    with _Processes(module, server, model, _place(host, chosen, options_path, step)) as processes:
        parent.exit_with_parent()
        return processes.wait()


def _files(address_file: Path, has_options: bool) -> tuple[Path | None, Path]:
    options_path = address_file.with_suffix(".options.yaml") if has_options else None
    return options_path, address_file.with_suffix(".ports.json")


def _place(host: str, chosen: Ports, options_path: Path | None, step: Step) -> Place:
    rendezvous = chosen.rendezvous if step.name else ""
    return Place(host=host, port=chosen.port, options_path=options_path, task=step.task, rendezvous=rendezvous)


class _Processes:
    """The server's process and all that it starts: one process group, which ends with this block."""

    def __init__(self, module: ModuleType, server: GpuServer, model: Model, place: Place) -> None:
        argv = module.command(server, model, place)
        log.info("starting %s", " ".join(argv))
        environment = module.environment(server, os.environ)
        try:
            self.leader = subprocess.Popen(argv, env=environment, process_group=0, preexec_fn=parent.die_with_parent())
        except FileNotFoundError as error:
            raise ValueError(
                f"server.kind={server.kind}: no {argv[0]} on PATH here; run the stage in an image that has it "
                "(resources.image, containers/images.yaml)"
            ) from error
        self._guard = _start_guard(self.leader.pid)
        self.stopping = False
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *raised: object) -> None:
        self._signal(signal.SIGKILL)
        self._release_guard()
        self.leader.wait()

    def _release_guard(self) -> None:
        """Before the leader is reaped: from then on its id may be another group's."""
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            with suppress(BrokenPipeError):
                self._guard.stdin.write(b".")
                self._guard.stdin.close()
        self._guard.wait()

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self._signal(signum)
        if not self.stopping:
            killer = threading.Timer(STOP_S, self._signal, (signal.SIGKILL,))
            killer.daemon = True
            killer.start()
        self.stopping = True

    def _signal(self, signum: int) -> None:
        # Until the leader is reaped its id is nobody else's, so the group is still ours.
        if self.leader.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.leader.pid, signum)

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.leader.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def wait(self) -> int:
        """The leader's exit code as a shell reports it: 128 + signal for one that a signal ended."""
        os.waitid(os.P_PID, self.leader.pid, os.WEXITED | os.WNOWAIT)
        self._signal(signal.SIGKILL)
        self._release_guard()
        code = self.leader.wait()
        return 128 - code if code < 0 else code


def _start_guard(group: int) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-S", group_guard.__file__, str(group)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)


def _wait_ready(processes: _Processes, path: str, host: str, port: int, timeout_s: float) -> bool:
    """False when it ended first."""
    deadline = time.monotonic() + timeout_s
    while not processes.ended():
        if _ready(host, port, path):
            return True
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the server did not answer {path} within server.startup_timeout_s={timeout_s:g}; see its log"
            )
        time.sleep(POLL_S)
    return False


def fetch(host: str, port: int, path: str, timeout_s: float = 30.0) -> bytes:
    """Raises OSError when it does not answer 200."""
    with _DIRECT.open(f"http://{ports.local(host)}:{port}{path}", timeout=timeout_s) as reply:
        if reply.status != 200:
            raise OSError(f"{path}: HTTP {reply.status}")
        return bytes(reply.read())


def _ready(host: str, port: int, path: str) -> bool:
    try:
        fetch(host, port, path, timeout_s=2.0)
    except OSError:  # HTTP errors too
        return False
    return True


def _model_id(model: Model, host: str, port: int) -> str:
    """What it lists the model as. Raises ValueError for another model: its completions would pass for this one's."""
    try:
        listed = [str(card["id"]) for card in json.loads(fetch(host, port, "/v1/models"))["data"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"the server is ready, but lists no models: {type(error).__name__}: {error}") from error
    accepted = accepted_ids(model)
    found = next((name for name in listed if name.rstrip("/") in accepted), None)
    if found is None:
        raise ValueError(
            f"the server has {', '.join(listed) or 'no model'}, and this stage's is {' or '.join(accepted)}: the wrong "
            "model, or another server on this port"
        )
    return found


def _version(module: ModuleType, host: str, port: int) -> str | None:
    for path in module.VERSION:
        try:
            version = json.loads(fetch(host, port, path)).get("version")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(version, str):
            return version
    return None
