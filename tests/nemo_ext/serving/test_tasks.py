"""The tasks of one server agree on what they run, and its ports and names."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nemo_ext.machine import ports
from nemo_ext.serving.address import wait_for
from nemo_ext.serving.launch import tasks
from nemo_ext.serving.launch.tasks import Ports, Step, read_ports, this_step, write_ports
from nemo_ext.serving.serve import use_gpus
from tests.nemo_ext.serving.conftest import ROOT, wait_until

ENV = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "1"}


def test_a_task_knows_its_step() -> None:
    assert this_step(4, ENV) == Step(3, "4711.0.1")
    assert this_step(4, ENV | {"SLURM_RESTART_COUNT": "2"}).name == "4711.2.1", "a requeued job has the same id"
    assert this_step(1, ENV) == tasks.ALONE
    with pytest.raises(ValueError, match="this job step has 4 tasks, and the server needs 16"):
        this_step(16, ENV)
    with pytest.raises(ValueError, match="SLURM_PROCID is not set here; use a cluster with executor: slurm"):
        this_step(4, {key: value for key, value in ENV.items() if key != "SLURM_PROCID"})


def test_the_others_wait_for_the_ports_of_this_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "POLL_S", 0.01)
    path, chosen = tmp_path / "server-0.ports.json", Ports("node1", 20001, 20002)
    write_ports(path, Step(0, "4711.0.1"), Ports("node9", 1, 2))  # of an earlier start
    timer = threading.Timer(0.2, write_ports, (path, Step(0, "4711.1.1"), chosen))
    timer.start()
    assert read_ports(path, Step(3, "4711.1.1"), 30) == chosen
    assert chosen.rendezvous == "node1:20002"
    with pytest.raises(TimeoutError, match="task 3: no .*server-0.ports.json of this step after 0.05 s"):
        read_ports(path, Step(3, "4711.2.1"), 0.05)


SGLANG = f"""#!{sys.executable}
import http.server, json, os, pathlib, sys, time
argv = sys.argv[3:]
rank = int(argv[argv.index("--node-rank") + 1])
pathlib.Path(os.environ["FAKE_FOLDER"], f"argv-{{rank}}.json").write_text(json.dumps(argv))
if rank > 0:
    time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        replies = {{"/v1/models": {{"data": [{{"id": "m"}}]}}, "/get_server_info": {{"version": "0.5"}}, "/health": {{}}}}
        body = json.dumps(replies.get(self.path)).encode()
        self.send_response(200 if self.path in replies else 404)
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(argv[argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_two_tasks_of_sglang(tmp_path: Path) -> None:
    """Two wrappers with the variables Slurm would set; the second is started first."""
    (tmp_path / "python3").write_text(SGLANG)
    (tmp_path / "python3").chmod(0o755)
    server = {"kind": "sglang", "tp_size": 2, "nodes": 2}
    model = {"name": "m", "hf_path": "/models/m", "context_length": 64}
    (tmp_path / "config.yaml").write_text(json.dumps({"server": server, "model": model}))
    address = tmp_path / "server-0.json"
    argv = [sys.executable, "-m", "nemo_ext.serving.serve", tmp_path / "config.yaml", "--address-file", address]
    env = {**os.environ, **ENV, "SLURM_NTASKS": "2", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    started = [
        subprocess.Popen(argv, cwd=ROOT, env={**env, "SLURM_PROCID": str(task), "FAKE_FOLDER": str(tmp_path)})
        for task in (1, 0)
    ]
    try:
        assert wait_for([address], 60)[0].model == "m"
        assert json.loads(address.read_text())["version"] == "0.5"
        wait_until(lambda: (tmp_path / "argv-1.json").exists() and (tmp_path / "argv-1.json").stat().st_size > 0)
        first, second = (json.loads((tmp_path / f"argv-{rank}.json").read_text()) for rank in (0, 1))
        rank = first.index("--node-rank") + 1
        assert (first[rank], second[rank]) == ("0", "1")
        assert [*first[:rank], *first[rank + 1 :]] == [*second[:rank], *second[rank + 1 :]]
        met, listens = (first[first.index(flag) + 1] for flag in ("--dist-init-addr", "--port"))
        assert met.partition(":")[2] not in ("", listens)
        started[0].terminate()
        assert started[0].wait(60) == 128 + 15
        assert address.exists(), "only the first task's file"
    finally:
        for process in started:
            process.terminate()
            process.wait(60)


def test_ports_are_distinct_free_and_below_those_of_outgoing_connections() -> None:
    found = ports.free_ports("127.0.0.1", 0, 20)
    assert len(set(found)) == 20 and all(20_000 <= port < 32_768 for port in found)
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        taken = squatter.getsockname()[1]
        assert taken not in ports.free_ports("127.0.0.1", taken, 2)
        assert ports.in_use("0.0.0.0", taken)
    assert ports.free_ports("127.0.0.1", found[0], 1) == [found[0]]


def test_the_public_name_is_one_that_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ports.public("127.0.0.1") == "127.0.0.1" == ports.local("0.0.0.0")
    monkeypatch.setenv("SLURMD_NODENAME", "localhost")
    assert ports.public("0.0.0.0") == "localhost"
    monkeypatch.setattr(ports, "_resolves", lambda name: False)
    address = ports.public("0.0.0.0")
    socket.inet_aton(address)
    assert address != "0.0.0.0"


def test_replicas_take_their_share_of_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    use_gpus("2,3")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6,7"
    with pytest.raises(ValueError, match=r"uses GPUs 2,3 of the node, and it may use 2 \(6,7\)"):
        use_gpus("2,3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    use_gpus("0,1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
