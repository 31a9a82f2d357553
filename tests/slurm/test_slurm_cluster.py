"""The Slurm executor on a real Slurm: two nodes on this machine, each with its own network and host name."""

import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from omegaconf import OmegaConf

from launchers.executors import slurm
from launchers.following import run_status
from launchers.here.display import Display
from launchers.planning.plan import PlannedStage, Task
from nemo_ext.models.model import Model
from nemo_ext.records import manifest
from recipes.asking.served import ServedStage, server_processes
from recipes.stage import Process, Resources, Stage
from tests.slurm.toy_jobs import CONFIG, ended, logs, stage, toy

HERE = Path(__file__).resolve().parent

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(300)]


def test_two_stages_two_nodes_and_a_service(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cluster / "a run of $HOME's"
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.setenv("UNLISTED", "1")
    config = replace(CONFIG, env={"MODE": "a b"}, env_from=["TOKEN"])
    address = run / "train" / "server.json"
    service = toy("serve", address, "server", service=True, ready_file=str(address))
    stages = [
        stage(run, "prepare", toy("prepare", run / "prepare")),
        stage(run, "train", service, toy("train", run / "train", ranks=2), after=("prepare",), nodes=2, gpus=2),
    ]
    address.parent.mkdir(parents=True)
    address.write_text('{"url": "http://10.231.9.1:9"}')  # left by an earlier run; nobody listens there
    slurm.check(config, stages)
    slurm.submit(config, stages, Display())
    states = ended(run)
    assert [found["JobState"] for found in states.values()] == ["COMPLETED", "COMPLETED"], logs(run)
    done = json.loads((run / "train" / "done.json").read_text())
    assert done["said"] == ["rank 0 local 0 on node1", "rank 1 local 0 on node2"]
    assert done["served_by"] == "node1"
    assert done["env"] == {"TOKEN": "s3cret", "UNLISTED": None, "MODE": "a b", "CUDA_VISIBLE_DEVICES": "0,1"}
    written = [path for path in run.rglob("*") if path.is_file() and path.name != "done.json"]
    assert not any("s3cret" in path.read_text() for path in written)
    assert {path.name for path in (run / "train" / "logs").glob("[ms]*-*.log")} >= {"main-0.log", "main-1.log"}
    slurm.check(config, stages)


def test_a_failed_stage_cancels_what_waits_for_it(cluster: Path) -> None:
    run = cluster / "fails"
    stages = [
        stage(run, "prepare", toy("fail", run)),
        stage(run, "train", toy("prepare", run / "train"), after=("prepare",)),
    ]
    slurm.submit(CONFIG, stages, Display())
    states = ended(run)
    assert (states["prepare"]["JobState"], states["prepare"]["ExitCode"]) == ("FAILED", "7:0"), logs(run)
    assert states["train"]["JobState"] == "CANCELLED"
    assert not (run / "train" / "ready.json").exists()
    for each in stages:
        (each.folder / "config.yaml").touch()
    prepare, train = run_status.status(run_status.look(run)).rows
    assert (prepare.state, prepare.error.split(",")[0]) == ("failed", "FAILED: exit code 7")
    assert (train.state, train.reason) == ("cancelled", "prepare failed")


def test_a_dead_service_fails_the_job_with_its_last_words(cluster: Path) -> None:
    run = cluster / "service"
    slurm.submit(
        CONFIG,
        [stage(run, "solve", toy("fail", run, "server", service=True), toy("preempt", run / "solve"))],
        Display(),
    )
    found = ended(run)["solve"]
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "1:0"), logs(run)
    assert "service server ended before main did" in logs(run)


def teacher(run: Path, what: str) -> PlannedStage:
    """A stage whose server is four tasks on two nodes, TensorRT-LLM's programs being the stand-ins in bin/."""
    folder = run / "teacher"
    server = {"kind": "trtllm", "tp_size": 2, "pp_size": 2, "nodes": 2, "mpi": "none", "metrics_interval_s": 0.2}
    model = Model(name="teacher", hf_path="/models/Llama-3.1-405B-Instruct", context_length=4096)
    cfg = ServedStage(uses="toy", name="teacher", output_dir=str(folder), model=model, server=server)
    cfg.resources = Resources(nodes=2, gpus=2)
    OmegaConf.save(OmegaConf.create({"server": server, "model": asdict(model)}), _made(folder) / "config.yaml")
    services = [each for each in server_processes(cfg, str(folder / "config.yaml")) if each.service]
    return stage(run, "teacher", *services, toy(what, folder), nodes=2, gpus=2)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def serve_on_two_nodes(run: Path, what: str) -> tuple[dict[str, str], list[dict[str, Any]], int]:
    """The ended job, what each of the server's four tasks found, and how many of their processes are still there."""
    folder = run / "teacher"
    env = {"PATH": f"{HERE / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}", "FAKE_FOLDER": str(folder)}
    config = replace(CONFIG, env=env)
    planned = teacher(run, what)
    slurm.check(config, [planned])
    slurm.submit(config, [planned], Display())
    found = ended(run)["teacher"]
    assert (folder / "task-3.json").exists(), logs(run)
    tasks = [json.loads((folder / f"task-{task}.json").read_text()) for task in range(4)]
    pids = [*(task["pid"] for task in tasks), int((folder / "server.pid").read_text())]
    deadline = time.monotonic() + 60
    while (left := sum(map(psutil.pid_exists, pids))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found, tasks, left


def test_a_server_over_two_nodes_answers_and_leaves_nothing(cluster: Path) -> None:
    run = cluster / "two_nodes"
    found, tasks, left = serve_on_two_nodes(run, "ask")
    assert found["JobState"] == "COMPLETED", logs(run)
    assert [task["node"] for task in tasks] == ["node1", "node1", "node2", "node2"]
    assert len({tuple(task["argv"]) for task in tasks}) == 1, "all run the same command"
    done = json.loads((run / "teacher" / "done.json").read_text())
    assert done["text"].endswith("says: hello") and done["asked_from"] == "node1"
    address = done["address"]
    assert (address["host"], address["model"]) == ("node1", "Llama-3.1-405B-Instruct")
    assert (address["kind"], address["version"]) == ("trtllm", "1.2.1")
    log = (run / "teacher" / "logs" / "server-0.log").read_text()
    assert "serving Llama-3.1-405B-Instruct on" in log and "Traceback" not in log
    assert left == 0, logs(run)


def test_a_server_that_loses_a_task_fails_the_job_and_leaves_nothing(cluster: Path) -> None:
    run = cluster / "broken"
    found, _, left = serve_on_two_nodes(run, "break")
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "1:0"), logs(run)
    assert "service server-0 ended before main did" in logs(run)
    assert left == 0


def test_an_array_runs_the_tasks_that_are_not_done(cluster: Path) -> None:
    run = cluster / "shards"
    module: Any = SimpleNamespace(
        Config=Stage,
        processes=lambda cfg, path: [
            Process("main", ["python", str(HERE / "toy_stage.py"), "prepare", cfg.output_dir])
        ],
    )
    contents = [
        {"uses": "toy", "name": "solve", "output_dir": str(run / "solve" / f"shard_{i}"), "shard": i} for i in range(3)
    ]
    tasks = [Task("solve", f"shard_{i}", content, module) for i, content in enumerate(contents)]
    tasks[1].folder.mkdir(parents=True)
    manifest.write(tasks[1].folder, "solve", "toy", tasks[1].config_hash, manifest.Facts(), 1.0)
    slurm.check(CONFIG, [PlannedStage("solve", "toy", [], Resources(), tasks)])
    slurm.submit(CONFIG, [PlannedStage("solve", "toy", [], Resources(), tasks)], Display())
    assert ended(run)["solve"]["JobState"] == "COMPLETED", logs(run)
    assert sorted(path.parent.name for path in run.rglob("ready.json")) == ["shard_0", "shard_2"], logs(run)
