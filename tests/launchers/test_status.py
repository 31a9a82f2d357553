"""The command that says what a run is at: once, as JSON, and watching."""

import json
import os
import subprocess
import sys

import pytest

from launchers import status
from launchers.following import run_status as run_statuses
from tests.conftest import ROOT
from tests.launchers.followed_run import Clients, Run


def command(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, str(ROOT / "launchers" / "status.py"), *words]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False)


def test_the_command(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    clients.add("7", "FAILED", run.folder, "train", status="256")
    shown = command("sft", RUNS_DIR=str(run.folder.parent))
    assert (shown.returncode, shown.stderr) == (0, "") and "\x1b" not in shown.stdout
    assert shown.stdout.splitlines()[0] == f"{run.folder} (slurm): 0 of 1 stages done"
    assert json.loads(command(str(run.folder), "--json").stdout)["stages"][0]["state"] == "failed"
    missing = command("sfx", RUNS_DIR=str(run.folder.parent))
    assert missing.returncode == 2 and "sft" in missing.stderr and missing.stderr.count("\n") == 1
    run.write("jobs.json", "{")
    damaged = command(str(run.folder))
    assert damaged.returncode == 2 and "jobs.json is damaged" in damaged.stderr and "Traceback" not in damaged.stderr


def test_watching_shows_what_changed_and_ends_with_the_run(
    run: Run, clients: Clients, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.stage("prepare", "6")
    run.stage("train", "7")
    run.done("prepare")
    clients.add("7", "RUNNING", run.folder, "train")
    looks = []

    class Ending(status.Watched):
        def look(self) -> run_statuses.RunStatus:
            looks.append(1)
            if len(looks) == 3:
                run.done("train", age_s=0)
                clients.forget()
            return super().look()

    monkeypatch.setattr(status, "PLAIN_INTERVAL_S", 0.0)
    monkeypatch.setattr(status, "SLURM_INTERVAL_S", 0.0)
    status.watch(Ending(run.folder), status.Console())
    lines = capsys.readouterr().out.splitlines()
    assert len(looks) == 3, "it ended as soon as the run had"
    assert sum(" 2 of 2 stages done" in line for line in lines) == 1
    assert sum("train" in line and "running" in line for line in lines) == 1, "what did not change is not said again"


def test_slurm_is_asked_less_often_than_files_are_read(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    clients.add("7", "RUNNING", run.folder, "train")
    watched = status.Watched(run.folder)
    for _ in range(3):
        assert watched.look().rows[0].state == "running"
    assert len(clients.calls) == 1


def test_it_starts_without_hydra_and_torch() -> None:
    program = "import sys; sys.path.insert(0, '.'); import launchers.status, launchers.logs, launchers.cancel; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "launchers.following.run_status" in loaded
    assert not loaded & {"hydra", "omegaconf", "torch", "transformers", "pyarrow", "numpy"}
    assert run_statuses.STALE_S > status.FILES_INTERVAL_S
