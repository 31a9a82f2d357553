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

from nemo_ext.machine import ports
from nemo_ext.models.model import Model
from nemo_ext.serving import serve
from nemo_ext.serving.address import wait_for
from nemo_ext.serving.server import load
from tests.nemo_ext.serving.conftest import ROOT, Running, StartServer, wait_until

STAND_IN = f"""#!{sys.executable}
import http.server, json, os, pathlib, signal, sys, time
here = pathlib.Path(os.environ["STAND_IN_FOLDER"])
argv = sys.argv[1:]
(here / "argv.json").write_text(json.dumps(argv))
(here / "pid").write_text(str(os.getpid()))
mode = os.environ.get("STAND_IN_MODE", "")
if mode == "leaves":  # as vLLM when its engine dies: an error somewhere above, and code 0
    print("ERROR EngineCore died", flush=True); print("leaked things", flush=True)
    sys.exit(0)
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
if mode == "worker":  # as vLLM's and TensorRT-LLM's: of the same process group, and deaf
    import subprocess
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    worker = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    worker.stdout.readline()
    (here / "worker").write_text(str(worker.pid))
load = ["vllm:num_requests_running 3\\nvllm:num_requests_waiting 1\\n"]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        model = "/models/other" if mode == "wrong" else argv[argv[0] == "serve"]
        replies = {{
            "/v1/models": {{"data": [{{"id": model.rpartition("/")[2]}}]}},
            "/version": {{"version": "1.2.3"}},
        }}
        body = b"<html>" if mode == "garbage" else json.dumps(replies.get(self.path, {{}})).encode()
        if self.path == "/metrics":
            body = (load.pop() if load else "vllm:num_requests_running 0\\nvllm:num_requests_waiting 0\\n").encode()
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
            "CUDA_VISIBLE_DEVICES": "4,5,6,7",
            "SLURM_JOB_ID": "4711",
            "PMIX_RANK": "0",
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
    wait_until((tmp_path / "argv.json").exists)  # by then the old one is gone
    (endpoint,) = wait_for([tmp_path / "a.json"], 60)
    argv = json.loads((tmp_path / "argv.json").read_text())
    assert endpoint.url == f"http://127.0.0.1:{argv[argv.index('--port') + 1]}"
    assert endpoint.model == "m"
    port = int(argv[argv.index("--port") + 1])
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "url": f"http://127.0.0.1:{port}", "host": "127.0.0.1", "port": port, "kind": "vllm", "model": "m",
        "version": "1.2.3", "pid": wrapper.pid,
    }  # fmt: skip
    assert port < 32768, "no port that an outgoing connection could take while the server loads"
    child = _child(tmp_path)
    assert os.getpgid(child.pid) != os.getpgid(wrapper.pid)
    wrapper.send_signal(signal.SIGTERM)
    assert wrapper.wait(60) == 5
    assert (tmp_path / "got").read_text() == str(int(signal.SIGTERM))
    assert not (tmp_path / "a.json").exists()
    served = json.loads((tmp_path / "a.served.json").read_text())
    assert served == {"kind": "vllm", "model": "m", "version": "1.2.3"}, "kept for the manifest"


def test_a_server_that_crashes_ends_the_wrapper_with_its_code(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    assert start_wrapper("crash").wait(60) == 7
    assert not (tmp_path / "a.json").exists()


def test_a_server_killed_later_is_reported_as_a_shell_would(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    wrapper = start_wrapper()
    wait_for([tmp_path / "a.json"], 60)
    _child(tmp_path).kill()
    assert wrapper.wait(60) == 128 + signal.SIGKILL
    assert not (tmp_path / "a.json").exists()


def test_a_server_that_never_gets_healthy_is_stopped(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    wrapper = start_wrapper("never", startup_timeout_s=1.5)
    children: list[psutil.Process] = []

    def started() -> bool:
        children.extend(psutil.Process(wrapper.pid).children())
        return bool(children) or wrapper.poll() is not None

    wait_until(started)
    assert wrapper.wait(60) == 1
    assert "startup_timeout_s=1.5" in (tmp_path / "log").read_text()
    assert not (tmp_path / "a.json").exists()
    wait_until(lambda: not any(child.is_running() for child in children))


def test_another_model_is_refused_and_the_client_hears_of_it(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    wrapper = start_wrapper("wrong")
    with pytest.raises(ValueError, match="a did not start: the server has other, and this stage's is m or /models/m"):
        wait_for([tmp_path / "a.json"], 60)
    assert wrapper.wait(60) == 1
    assert "Traceback" not in (tmp_path / "log").read_text()
    wait_until(lambda: not psutil.pid_exists(int((tmp_path / "pid").read_text())))


def test_a_server_that_talks_nonsense_is_one_line(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    assert start_wrapper("garbage", metrics_interval_s=0.01).wait(60) == 1
    log = (tmp_path / "log").read_text()
    assert "the server is ready, but lists no models: JSONDecodeError" in log and "Traceback" not in log


@pytest.mark.parametrize("kill_server", [False, True])
def test_no_worker_outlives_its_server(tmp_path: Path, start_wrapper: StartWrapper, kill_server: bool) -> None:
    wrapper = start_wrapper("worker")
    wait_for([tmp_path / "a.json"], 60)
    worker = psutil.Process(int((tmp_path / "worker").read_text()))
    (_child(tmp_path) if kill_server else wrapper).send_signal(signal.SIGTERM)
    assert wrapper.wait(60) == 5
    wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def test_its_load_is_logged_and_kept(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    start_wrapper(metrics_interval_s=0.1)
    wait_for([tmp_path / "a.json"], 60)
    wait_until(lambda: "0 running, 0 waiting" in (tmp_path / "log").read_text())
    assert "load: 3 running, 1 waiting\n" in (tmp_path / "log").read_text()
    assert json.loads((tmp_path / "a.metrics.json").read_text())["running"] == 0


def test_an_image_without_the_server_is_one_line(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    (tmp_path / "vllm").unlink()
    assert start_wrapper().wait(60) == 1
    assert "no vllm on PATH here; run the stage in an image that has it" in (tmp_path / "log").read_text()


def test_the_server_does_not_outlive_a_killed_wrapper(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    wrapper = start_wrapper()
    wait_for([tmp_path / "a.json"], 60)
    child = _child(tmp_path)
    wrapper.kill()
    wrapper.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_no_worker_outlives_a_killed_wrapper(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    wrapper = start_wrapper("worker")
    wait_for([tmp_path / "a.json"], 60)
    worker = psutil.Process(int((tmp_path / "worker").read_text()))
    family = [*psutil.Process(wrapper.pid).children(recursive=True), worker]
    assert len(family) >= 3, "the server, its worker, and who watches over them"
    wrapper.kill()
    wrapper.wait()
    wait_until(lambda: all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in family))


def test_a_server_that_ends_unasked_has_failed_whatever_it_says(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    assert start_wrapper("leaves").wait(60) == 1
    assert "ERROR the server ended by itself" in (tmp_path / "log").read_text()


def test_a_port_whose_connections_linger_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # which reuses addresses, as servers do
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        connection, _ = listener.accept()
    connection.close()  # first to close: its end is in TIME_WAIT
    client.close()
    assert ports.free_ports("127.0.0.1", port, 2)[0] == port


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


def test_trtllm_gets_its_options_file_and_its_gpus(tmp_path: Path, start_wrapper: StartWrapper) -> None:
    start_wrapper("", "--gpus", "2,3", kind="trtllm", tp_size=2, kv_cache_dtype="fp8", max_batch_size=32)
    wait_for([tmp_path / "a.json"], 60)
    argv = json.loads((tmp_path / "argv.json").read_text())
    options = yaml.safe_load(Path(argv[argv.index("--extra_llm_api_options") + 1]).read_text())
    assert options["kv_cache_config"]["dtype"] == "fp8"
    assert options["cuda_graph_config"] == {"enable_padding": True, "max_batch_size": 32}
    environment = _child(tmp_path).environ()
    assert environment["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert not [key for key in environment if key.startswith(("SLURM_", "PMIX_"))], "its own MPI would join Slurm's"


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"kind": "external", "urls": ["http://h:1"], "model": "m"}, "run by somebody else"),
        ({"kind": "nope"}, "server.kind='nope': unknown"),
        ({"kind": "trtllm", "tp_size": 8, "nodes": 2}, "SLURM_PROCID, SLURM_NTASKS, SLURM_STEP_ID is not set here"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: dict[str, Any], message: str
) -> None:
    for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    config, address = tmp_path / "config.yaml", tmp_path / "a.json"
    config.write_text(yaml.safe_dump({"server": server, "model": {"name": "m", "hf_path": "m", "context_length": 64}}))
    monkeypatch.setattr(sys, "argv", ["serve", str(config), "--address-file", str(address)])
    with pytest.raises(SystemExit) as raised:
        serve.main()
    assert message in str(raised.value.code), "text: Python prints it and exits with 1"
    assert message in json.loads(address.read_text())["error"]


def test_the_embedded_server_takes_another_port_too(shared_server: Running, start_server: StartServer) -> None:
    first, second = shared_server, start_server("--port", shared_server.url.rpartition(":")[2])
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


def test_a_model_that_the_image_would_misread_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}))
    monkeypatch.setattr(serve, "installed", lambda package: {"transformers": "4.57.3"}[package])
    monkeypatch.setattr(serve.server_process, "run", lambda *_: pytest.fail("it was started"))
    model = Model(name="mine", hf_path=str(tmp_path), context_length=512)
    with pytest.raises(ValueError, match=r"config\.json: .* has transformers 4\.57\.3, which may read theta 10,000"):
        serve.serve(load({"kind": "vllm"}), model, tmp_path / "server-0.json", "127.0.0.1", 0)
