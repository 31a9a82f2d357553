"""A real sandbox service, and sessions without HTTP."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from nemo_ext.sandbox import access
from nemo_ext.sandbox.config import SandboxConfig
from nemo_ext.sandbox.forks import ForkServer
from nemo_ext.sandbox.sessions import Sessions
from tests.conftest import ROOT

SECRET = "sk-secret-of-the-service"
SMALL = {"memory_mb": 256, "max_output_kb": 256, "scratch_mb": 8, "max_processes": 12}
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@cache
def possible() -> list[str]:
    """The isolations this machine has, asked without our code: a defect there must fail a test, not skip it."""
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    commands = {
        "bubblewrap": ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"],
        "namespaces": ["unshare", *user, "--mount", "--net", "--pid", "--fork", "true"],
    }
    return [
        name
        for name, argv in commands.items()
        if shutil.which(argv[0]) and subprocess.run(argv, capture_output=True).returncode == 0
    ]


def wait_until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def sleeping(pid: int) -> list[int]:
    """Processes called `sleep` below this one."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found += [child.pid] if child.name() == "sleep" else []
    return found


@dataclass
class Service:
    """A service process and a plain HTTP client for it."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path
    token: str
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json", **access.header(self.token)}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers)
        try:
            with _DIRECT.open(request, timeout=100) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def execute(self, code: str, session: str | None = None, **more: Any) -> dict[str, Any]:
        """In a session of its own unless one is named."""
        body = {"session": session or uuid.uuid4().hex, "code": code, "timeout_s": 60, **more}
        status, reply = self.request("POST", "/execute", json.dumps(body).encode())
        assert status == 200, reply
        return reply

    @property
    def health(self) -> dict[str, Any]:
        return self.request("GET", "/health")[1]

    @property
    def descendants(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]


def start_service(folder: Path, *arguments: str, env: dict[str, str] | None = None, **config: Any) -> Service:
    """Returns once it listens; raises AssertionError with its log if it ends."""
    path, address, log = folder / "config.yaml", folder / "sandbox.json", folder / "sandbox.log"
    path.write_text(yaml.safe_dump({"sandbox": config, "other": 1}))
    address.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "nemo_ext.sandbox.service", str(path), "--address-file", str(address), *arguments]
    with log.open("ab") as handle:
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=handle, stderr=handle, env={**os.environ, "SECRET": SECRET, **(env or {})}
        )
    wait_until(lambda: address.exists() or process.poll() is not None)
    assert process.poll() is None, log.read_text()
    return Service(process, json.loads(address.read_text())["url"], log, access.read(address))


def stop(service: Service) -> None:
    if service.process.poll() is None:
        service.process.kill()
    service.process.wait()


@pytest.fixture(scope="session", params=["bubblewrap", "namespaces"])
def sandbox(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One per isolation, with small limits; shared, so tests use sessions of their own."""
    if request.param not in possible():
        pytest.skip(f"no isolation by {request.param} on this machine")
    service = start_service(tmp_path_factory.mktemp(request.param), isolation=request.param, **SMALL)
    yield service
    stop(service)


@pytest.fixture(scope="session")
def any_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The one that `auto` chooses, all 50 blocks at once; for what does not depend on the isolation."""
    if not possible():
        pytest.skip("nothing isolates on this machine")
    service = start_service(tmp_path_factory.mktemp("sandbox"), max_parallel=50, preload=[], **SMALL)
    yield service
    stop(service)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []
    if not possible():
        pytest.skip("nothing isolates on this machine")

    def one(*arguments: str, **config: Any) -> Service:
        if "isolation" in config and config["isolation"] not in possible():
            pytest.skip(f"no isolation by {config['isolation']} on this machine")
        started.append(start_service(tmp_path, *arguments, **{"preload": [], **SMALL, **config}))
        return started[-1]

    yield one
    for service in started:
        stop(service)


@asynccontextmanager
async def sessions_of(**config: Any) -> AsyncIterator[Sessions]:
    """Without HTTP."""
    if not possible():
        pytest.skip("nothing isolates on this machine")
    forks = ForkServer(SandboxConfig(**{"preload": [], **SMALL, **config}))
    sessions = Sessions(forks.config, forks)
    try:
        await forks.start()
        yield sessions
    finally:
        sessions.close()
