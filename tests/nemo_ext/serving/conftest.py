"""Tiny checkpoints, made once per run, and real server processes over them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.serving.address import Endpoint
from tests.nemo_ext.serving.fake_server import FakeServer, fake  # noqa: F401 - a fixture
from tests.nemo_ext.serving.tiny_checkpoint import LLAMA3_ROPE, make_checkpoint

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied embeddings, default rope."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def llama3_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shaped as Llama 3.1: grouped queries, untied, llama3 rope scaling."""
    folder = tmp_path_factory.mktemp("llama3")
    return make_checkpoint(folder, rope=LLAMA3_ROPE, tied=False, num_heads=8, num_kv_heads=2, head_dim=16, seed=1)


@dataclass
class Running:
    process: "subprocess.Popen[bytes]"
    url: str
    model: str
    address_file: Path
    log: Path

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.url, self.model)

    def post(self, path: str, body: object, timeout: float = 100) -> tuple[int, Any]:
        """Status and decoded body; errors are returned, not raised."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=100) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def gauge(self, name: str) -> float:
        lines = self.get("/metrics")[1].splitlines()
        return float(next(line for line in lines if line.startswith(f"embedded_{name} ")).split()[1])

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 60) -> int:
        self.process.send_signal(signum)
        return self.process.wait(timeout)


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


StartServer = Callable[..., Running]


def _start(folder: Path, checkpoint: Path, arguments: list[str], server: dict[str, Any]) -> Running:
    folder.mkdir(parents=True)
    config, address, log = folder / "config.yaml", folder / "server-0.json", folder / "server.log"
    model = {"name": "tiny", "hf_path": str(checkpoint), "context_length": 512}
    config.write_text(json.dumps({"server": {"kind": "embedded", **server}, "model": model}))  # JSON is YAML
    argv = [sys.executable, "-m", "nemo_ext.serving.serve", str(config), "--address-file", str(address), *arguments]
    with log.open("wb") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(argv, stdout=output, stderr=output, cwd=ROOT, env=environment)
    wait_until(lambda: address.exists() or process.poll() is not None)
    assert process.poll() is None, log.read_text()
    published = json.loads(address.read_text())
    return Running(process, published["url"], published["model"], address, log)


@pytest.fixture
def start_server(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[StartServer]:
    """start_server(max_batch_size=4, ...) starts a fresh server and returns it once it is healthy."""
    started: list[Running] = []

    def start(*arguments: str, checkpoint: Path = tiny_checkpoint, **server: object) -> Running:
        started.append(_start(tmp_path / f"server{len(started)}", checkpoint, list(arguments), server))
        return started[-1]

    yield start
    for running in started:
        _end(running)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Running]:
    """One healthy server for tests that leave it as they found it."""
    running = _start(tmp_path_factory.mktemp("shared") / "server", tiny_checkpoint, [], {"max_batch_size": 32})
    yield running
    _end(running)


def _end(running: Running) -> None:
    if running.process.poll() is None:
        running.process.kill()
    running.process.wait(60)
