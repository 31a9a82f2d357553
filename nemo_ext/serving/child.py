"""A server in a child process: start it on a free port, wait for its /health, pass signals on, report its end."""

import errno
import json
import logging
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType

from omegaconf import OmegaConf

from nemo_ext.files import write_text_atomic
from nemo_ext.model import Model
from nemo_ext.serving import parent
from nemo_ext.serving.server import Server

log = logging.getLogger(__name__)

POLL_S = 0.2
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this node's own server, never a proxy
START_ATTEMPTS = 3  # ports another process may take between our look and the server's bind


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to `port`, or to any free one if that is 0 or in use."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        log.warning("port %d is in use; taking another", port)
        listener.bind((host, 0))
    return listener


def free_port(host: str, port: int) -> int:
    with bind(host, port) as probe:
        return int(probe.getsockname()[1])


def run(
    module: ModuleType,
    server: Server,
    model: Model,
    host: str,
    port: int,
    address_file: Path,
    publish: Callable[[int, str], None],
) -> int:
    """Start, wait, publish (with the port and the model id the server lists), and return the exit code.

    Raises:
        TimeoutError: not healthy within startup_timeout_s; the child has been stopped.
    """
    options = module.options(server, model)
    options_path = address_file.with_suffix(".options.yaml") if options else None
    if options_path is not None:
        write_text_atomic(options_path, OmegaConf.to_yaml(OmegaConf.create(options)))
    for attempt in range(START_ATTEMPTS):
        chosen = free_port(host, port)
        argv = module.command(server, model, host, chosen, options_path)
        log.info("starting %s", " ".join(argv))
        process = subprocess.Popen(argv, process_group=0, preexec_fn=parent.die_with_parent())
        stopping = _forward_signals(process)
        if attempt == 0:
            parent.exit_with_parent()
        if _wait_healthy(process, host, chosen, server.startup_timeout_s):
            publish(chosen, _model_id(host, chosen))
            return _exit_code(process.wait())
        if stopping or attempt + 1 == START_ATTEMPTS or not _in_use(host, chosen):
            return _exit_code(process.returncode)
        log.warning("port %d was taken before the server bound it; starting again on another", chosen)
    raise AssertionError("the last attempt returns")


def _forward_signals(process: "subprocess.Popen[bytes]") -> list[int]:
    """Pass SIGTERM and SIGINT to the child; the list fills with those that came."""
    received: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if process.poll() is None:
            process.send_signal(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, forward)
    return received


def _wait_healthy(process: "subprocess.Popen[bytes]", host: str, port: int, timeout_s: float) -> bool:
    """False when the child ended first."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if _healthy(host, port):
            return True
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise TimeoutError(
                f"the server did not answer /health within startup_timeout_s={timeout_s:g}; see its log"
            )
        time.sleep(POLL_S)
    return False


def _local(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104


def _healthy(host: str, port: int) -> bool:
    try:
        with _DIRECT.open(f"http://{_local(host)}:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _model_id(host: str, port: int) -> str:
    """TensorRT-LLM names the model after its folder, others as told; ask."""
    with _DIRECT.open(f"http://{_local(host)}:{port}/v1/models", timeout=30) as reply:
        return str(json.loads(reply.read())["data"][0]["id"])


def _in_use(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((_local(host), port)) == 0


def _exit_code(returncode: int) -> int:
    """As a shell reports it: 128 + signal for a child a signal ended."""
    return 128 - returncode if returncode < 0 else returncode
