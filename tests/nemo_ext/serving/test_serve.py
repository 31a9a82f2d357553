"""The wrapper around server processes, with a stand-in for `vllm` and `trtllm-serve` on PATH."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from nemo_ext.serving.address import wait_for
from tests.nemo_ext.serving.conftest import ROOT, StartServer, wait_until

STAND_IN = f"""#!{sys.executable}
import http.server, json, os, pathlib, signal, sys, time
here = pathlib.Path(os.environ["STAND_IN_FOLDER"])
argv = sys.argv[1:]
(here / "argv.json").write_text(json.dumps(argv))
(here / "pid").write_text(str(os.getpid()))
mode = os.environ.get("STAND_IN_MODE", "")
if mode == "crash":
    sys.exit(7)
if mode == "taken" and not (here / "again").exists():
    import socket
    (here / "again").write_text("")
    squatter = socket.create_server(("127.0.0.1", int(argv[argv.index("--port") + 1])))
    if (pid := os.fork()) == 0:
        os.setsid(); time.sleep(60); os._exit(0)
    (here / "squatter").write_text(str(pid))
    sys.exit(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"data": [{{"id": "listed-id"}}]}}).encode()
        self.send_response(503 if mode == "never" and self.path == "/health" else 200)
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
def stop(signum, frame):
    (here / "got").write_text(str(signum)); os._exit(5)
signal.signal(signal.SIGTERM, stop)
http.server.HTTPServer(("127.0.0.1", int(argv[argv.index("--port") + 1])), Handler).serve_forever()
"""

StartWrapper = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_wrapper(tmp_path: Path) -> Iterator[StartWrapper]:
    for name in ("vllm", "trtllm-serve"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str = "", *arguments: str, **server: Any) -> "subprocess.Popen[bytes]":
        model = {"name": "m", "hf_path": "/models/m", "context_length": 64}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump({"server": {"kind": "vllm", **server}, "model": model, "other": 1}))
        argv = [
            sys.executable,
            "-m",
            "nemo_ext.serving.serve",
            str(config),
            "--address-file",
            str(tmp_path / "a.json"),
        ]
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "STAND_IN_FOLDER": str(tmp_path),
            "STAND_IN_MODE": mode,
            "http_proxy": "http://127.0.0.1:9",  # health checks must not go through a proxy
        }
        with (tmp_path / "log").open("wb") as log:
            started.append(subprocess.Popen([*argv, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def _child(tmp_path: Path) -> psutil.Process:
    return psutil.Process(int((tmp_path / "pid").read_text()))


def test_publishes_the_address_and_passes_sigterm_and_the_exit_code(
    tmp_path: Path, start_wrapper: StartWrapper
) -> None:
    (tmp_path / "a.json").write_text("left by an earlier run")
    wrapper = start_wrapper()
    wait_until(lambda: not (tmp_path / "a.json").exists() or "url" in (tmp_path / "a.json").read_text())
    (endpoint,) = wait_for([tmp_path / "a.json"], 60)
    argv = json.loads((tmp_path / "argv.json").read_text())
    assert endpoint.url == f"http://127.0.0.1:{argv[argv.index('--port') + 1]}"
    assert endpoint.model == "listed-id"
    assert json.loads((tmp_path / "a.json").read_text())["pid"] == wrapper.pid
    child = _child(tmp_path)
    assert os.getpgid(child.pid) != os.getpgid(wrapper.pid)
    wrapper.send_signal(signal.SIGTERM)
    assert wrapper.wait(30) == 5
    assert (tmp_path / "got").read_text() == str(int(signal.SIGTERM))
    assert not (tmp_path / "a.json").exists()


def test_a_server_that_crashes_ends_the_wrapper_with_its_code(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    assert start_wrapper("crash").wait(60) == 7
    assert not (tmp_path / "a.json").exists()


def test_a_server_killed_later_is_reported_as_a_shell_would(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    wrapper = start_wrapper()
    wait_for([tmp_path / "a.json"], 60)
    _child(tmp_path).kill()
    assert wrapper.wait(30) == 128 + signal.SIGKILL
    assert not (tmp_path / "a.json").exists()


def test_a_server_that_never_gets_healthy_is_stopped(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    wrapper = start_wrapper("never", startup_timeout_s=1.5)
    assert wrapper.wait(60) == 1
    assert "startup_timeout_s=1.5" in (tmp_path / "log").read_text()
    assert not (tmp_path / "a.json").exists()
    wait_until(lambda: not psutil.pid_exists(int((tmp_path / "pid").read_text())))


def test_the_server_does_not_outlive_a_killed_wrapper(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    wrapper = start_wrapper()
    wait_for([tmp_path / "a.json"], 60)
    child = _child(tmp_path)
    wrapper.kill()
    wrapper.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_port_in_use_is_replaced(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        start_wrapper("", "--port", str(taken))
        (endpoint,) = wait_for([tmp_path / "a.json"], 60)
        assert not endpoint.url.endswith(f":{taken}")


def test_a_port_taken_between_look_and_bind_is_replaced(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    start_wrapper("taken")
    try:
        wait_for([tmp_path / "a.json"], 60)
    finally:
        os.kill(int((tmp_path / "squatter").read_text()), signal.SIGKILL)
    assert "starting again on another" in (tmp_path / "log").read_text()


def test_trtllm_gets_its_options_file(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    start_wrapper(kind="trtllm", kv_cache_dtype="fp8", max_batch_size=32)
    wait_for([tmp_path / "a.json"], 60)
    argv = json.loads((tmp_path / "argv.json").read_text())
    options = yaml.safe_load(Path(argv[argv.index("--extra_llm_api_options") + 1]).read_text())
    assert options["kv_cache_config"]["dtype"] == "fp8"
    assert options["cuda_graph_config"] == {"enable_padding": True, "max_batch_size": 32}


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"kind": "external", "urls": ["http://h:1"], "model": "m"}, "run by somebody else"),
        ({"kind": "nope"}, "server.kind='nope': unknown"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, start_wrapper: StartWrapper, server: dict[str, Any], message: str
) -> None:
    assert start_wrapper(**server).wait(60) == 1
    log = (tmp_path / "log").read_text()
    assert message in log
    assert "Traceback" not in log


def test_the_embedded_server_takes_another_port_too(start_server: StartServer) -> None:
    first = start_server()
    second = start_server("--port", first.url.rpartition(":")[2])
    assert second.url != first.url
    assert second.get("/health")[0] == first.get("/health")[0] == 200


ORPHANING = """
import subprocess, sys
process = subprocess.Popen(sys.argv[1:])
print(process.pid, flush=True)
process.wait()
"""


def test_the_embedded_server_does_not_outlive_its_parent(tmp_path: Path, tiny_checkpoint: Path) -> None:
    config, address = tmp_path / "config.yaml", tmp_path / "a.json"
    model = {"name": "m", "hf_path": str(tiny_checkpoint), "context_length": 64}
    config.write_text(yaml.safe_dump({"server": {"kind": "embedded"}, "model": model}))
    argv = [sys.executable, "-m", "nemo_ext.serving.serve", str(config), "--address-file", str(address)]
    parent = subprocess.Popen([sys.executable, "-c", ORPHANING, *argv], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    wait_for([address], 60)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    assert not address.exists()
