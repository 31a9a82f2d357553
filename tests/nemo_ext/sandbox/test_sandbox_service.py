"""The service as a process: address file, signals, refusals, and what it answers to nonsense."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from nemo_ext.sandbox import access
from nemo_ext.sandbox.config import SandboxConfig, ToolLoopConfig
from nemo_ext.serving.address import wait_for
from tests.conftest import ROOT
from tests.nemo_ext.sandbox.conftest import SMALL, Service, start_service, stop, wait_until


def test_publishes_its_address_and_takes_it_back(tmp_path: Path, start: Callable[..., Service]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = start("--port", str(taken.getsockname()[1]))
        assert str(taken.getsockname()[1]) not in service.url
    address = tmp_path / "sandbox.json"
    (endpoint,) = wait_for([address], 1)
    assert (endpoint.url, endpoint.model) == (service.url, "sandbox")
    assert json.loads(address.read_text())["pid"] == service.process.pid
    service.execute("1", "a")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    assert not address.exists()
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("isolation", ["bubblewrap", "namespaces"])
def test_sessions_end_with_a_service_that_is_killed(start: Callable[..., Service], isolation: str) -> None:
    service = start(isolation=isolation)
    service.execute("import subprocess\nx = 1", "a")
    processes = psutil.Process(service.process.pid).children(recursive=True)
    assert len(processes) >= 2
    service.process.kill()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


def test_a_running_block_is_answered_when_the_service_stops(start: Callable[..., Service]) -> None:
    service = start()
    body = json.dumps({"session": "a", "code": "import time\ntime.sleep(60)"}).encode()
    argv = ["curl", "-s", "--noproxy", "*", "-d", "@-", "-H", f"Authorization: Bearer {service.token}"]
    argv += ["-H", "Content-Type: application/json", f"{service.url}/execute"]
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    client = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin is not None
    client.stdin.write(body)
    client.stdin.close()
    wait_until(lambda: service.health["running"] == 1)
    service.process.terminate()
    assert service.process.wait(60) == 0
    assert client.stdout is not None
    assert json.loads(client.stdout.read())["class"] == "died"
    client.wait()


def test_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import sys, time; sys.path.insert(0, '.'); from pathlib import Path\n"
        "from tests.nemo_ext.sandbox.conftest import start_service\n"
        "print(start_service(Path(sys.argv[1]), preload=[]).process.pid, flush=True); time.sleep(60)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    service = psutil.Process(int(launcher.stdout.readline()))
    processes = [service, *service.children(recursive=True)]
    launcher.kill()
    launcher.wait()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
    assert not (tmp_path / "sandbox.json").exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "Input is a zero-length, empty document"),
        (b"\xff\xfe{", "UTF-8"),
        (b"[1]", "the body is a list; it must be an object"),
        (b"{}", "session must be text of 1 to 200 characters"),
        (b'{"session": "", "code": "1"}', "session must be text"),
        (b'{"session": "a"}', "code must be text"),
        (b'{"session": "a", "code": 1}', "code must be text"),
        (b'{"session": "a", "code": "1", "timeout_s": 0}', "timeout_s must be a number above 0"),
        (b'{"session": "a", "code": "1", "timeout_s": true}', "timeout_s must be a number above 0"),
        (b'{"session": "a", "code": "1", "timeout_s": NaN}', "400"),
        (b'{"session": "a", "code": "1", "history": "x"}', "history must be a list of text"),
        (b'{"session": "a", "code": "1", "language": "lean"}', "unknown: language; there are session, code"),
        (b'{"session": "a", "code": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "400"),
        (b"x" * (5 << 20), "the body is longer than 4194304 bytes"),
    ],
)
def test_nonsense_is_refused_with_a_reason(any_sandbox: Service, body: bytes, says: str) -> None:
    status, reply = any_sandbox.request("POST", "/execute", body)
    assert status == (413 if len(body) > 4 << 20 else 400)
    assert says == "400" or says in reply["error"]


def test_a_block_that_is_too_long_is_the_models_fault(any_sandbox: Service) -> None:
    reply = any_sandbox.execute("#" * 70_000)
    assert (reply["class"], reply["message"]) == ("error", "the block is longer than 64 KB and was not run")
    assert any_sandbox.execute("x = '" + "a" * 65_000 + "'\nlen(x)")["output"] == "65000\n"


def test_raw_bytes_on_the_socket_do_no_harm(any_sandbox: Service) -> None:
    host, _, port = any_sandbox.url.removeprefix("http://").partition(":")
    for data in (b"\0" * 1000, b"POST /execute HTTP/1.1\r\nContent-Length: 99\r\n\r\n{", b"GET / HTTP/9\r\n\r\n"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(data)
    assert any_sandbox.execute("6 * 7")["output"] == "42\n"
    assert any_sandbox.request("DELETE", "/sessions/unknown") == (200, {"deleted": False})


def test_a_full_service_says_so(start: Callable[..., Service]) -> None:
    service = start(max_sessions=1)
    service.execute("1", "a")
    status, reply = service.request("POST", "/execute", b'{"session": "b", "code": "1"}')
    assert (status, reply) == (429, {"error": "all 1 sessions (sandbox.max_sessions) are in use"})


def test_health_counts(start: Callable[..., Service]) -> None:
    service = start()
    for code in ("1", "2", "1 / 0", "x = = 1"):
        service.execute(code, "a")
    health = service.health
    assert (health["status"], health["sessions"], health["running"]) == ("ok", 1, 0)
    assert health["executions"] == {"ok": 2, "error": 1, "syntax_error": 1}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"other": 1}, "no `sandbox` mapping; a stage that executes code has one"),
        ({"sandbox": {"memory": 1}}, "Key 'memory' not in 'SandboxConfig'"),
        ({"sandbox": {"memory_mb": "much"}}, "could not be converted to Integer"),
        ({"sandbox": {"memory_mb": 0}}, "sandbox.memory_mb=0: it must be more than 0"),
        ({"sandbox": {"isolation": "docker"}}, "sandbox.isolation='docker': choose auto, bubblewrap or namespaces"),
        ({"sandbox": {"preload": ["no_such_module"]}}, "sandbox.preload: cannot import 'no_such_module': ModuleNotFoundError"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_one_line(tmp_path: Path, config: object, says: str) -> None:
    ended = _run(tmp_path, config)
    assert ended.returncode == 1
    assert says in ended.stderr.strip().splitlines()[-1] or says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert says in json.loads((tmp_path / "a.json").read_text())["error"]


def _run(folder: Path, config: object, *prefix: str) -> "subprocess.CompletedProcess[str]":
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    argv = [sys.executable, "-m", "nemo_ext.sandbox.service", str(folder / "c.yaml"), "--address-file"]
    return subprocess.run(
        [*prefix, *argv, str(folder / "a.json")], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


NO_NAMESPACES = (
    "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "sh", "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"', "sh",
)  # fmt: skip


@pytest.fixture
def no_namespaces() -> tuple[str, ...]:
    probe = subprocess.run([*NO_NAMESPACES, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0 or not os.access(sys.executable, os.X_OK):
        pytest.skip(f"cannot make a place without namespaces: {probe.stderr}")
    return NO_NAMESPACES


def test_refuses_to_run_code_unisolated(tmp_path: Path, no_namespaces: tuple[str, ...]) -> None:
    ended = _run(tmp_path, {"sandbox": {"preload": []}}, *no_namespaces)
    assert ended.returncode == 1
    assert "nothing here can isolate the code that models write:\n" in ended.stderr
    assert "sandbox.allow_unisolated=true" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unisolated_on_demand_still_limits_time_and_memory(tmp_path: Path, no_namespaces: tuple[str, ...]) -> None:
    config = {"sandbox": {"preload": [], "allow_unisolated": True, **SMALL}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    address = tmp_path / "a.json"
    argv = [sys.executable, "-m", "nemo_ext.sandbox.service", str(tmp_path / "c.yaml"), "--address-file", str(address)]
    log = tmp_path / "log"
    with log.open("wb") as handle:
        process = subprocess.Popen(
            [*no_namespaces, *argv],
            cwd=ROOT,
            stdout=handle,
            stderr=handle,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
    try:
        wait_until(lambda: address.exists() or process.poll() is not None)
        service = Service(process, json.loads(address.read_text())["url"], log, access.read(address))
        assert service.health["isolation"] == "none"
        assert "WARNING isolation: none" in log.read_text()
        assert service.execute("x = 1", "a")["class"] == "ok"
        assert service.execute("x", "a")["output"] == "1\n"
        assert service.execute("while True: pass", "a", timeout_s=0.4)["class"] == "timeout"
        assert service.execute("x = bytearray(100 * 2**30)", "a")["class"] == "memory"
        assert service.execute("while True: print(1)", "a")["class"] == "output_limit"
    finally:
        process.kill()
        process.wait()


def test_a_missing_bubblewrap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install the package bubblewrap" in _run(tmp_path, {"sandbox": {"isolation": "bubblewrap"}}).stderr
    service = start_service(tmp_path, preload=[], **SMALL)
    assert service.health["isolation"] == "namespaces", "auto goes on to the next"
    stop(service)


@pytest.mark.parametrize(
    "wrong",
    [{"format": "xml"}, {"cut": "middle"}, {"timeout_s": 0}, {"max_executions": -1}, {"max_total_tokens": 0}],
)
def test_a_wrong_tool_loop_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ToolLoopConfig(**wrong)  # type: ignore[arg-type]


def test_the_longest_block_fits_a_message() -> None:
    with pytest.raises(ValueError, match="max_code_kb=129: at most 128"):
        SandboxConfig(max_code_kb=129)
