"""What a run on this machine is said to be at, from its files and from real launchers."""

import fcntl
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from launchers.following import launcher_record
from tests.conftest import ROOT
from tests.launchers.followed_run import Run

# Launchers on this machine: a process that holds the folder's lock, records itself, and runs a stage that sleeps.
LAUNCHER = """
import fcntl, pathlib, signal, sys, time, types
sys.path.insert(0, sys.argv[2])
from launchers.following import launcher_record
run_dir, how = pathlib.Path(sys.argv[1]), sys.argv[3]
def stop(*_): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
tasks = [types.SimpleNamespace(part="")]
stages = [types.SimpleNamespace(name=name, after=[], tasks=tasks) for name in ("prepare", "train", "average")]
with (run_dir / ".lock").open("w") as handle:
    fcntl.flock(handle, fcntl.LOCK_EX)
    with launcher_record.recorded(run_dir, "local", stages, stages):
        (run_dir / "prepare" / "_DONE").write_text("{}")
        (run_dir / "train" / ".lock").touch()
        if how == "fails":
            raise RuntimeError("train: exit code -9. The log has no more")
        print("ready", flush=True)
        while True:  # signal.pause() would miss a signal that came just before it
            time.sleep(0.05)
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Callable[[Run, str], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start(run: Run, how: str = "waits") -> "subprocess.Popen[str]":
        for name in ("prepare", "train", "average"):
            run.write(f"{name}/config.yaml", "uses: x\n")
        argv = [sys.executable, "-c", LAUNCHER, str(run.folder), str(ROOT), how]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


Start = Callable[..., "subprocess.Popen[str]"]


def states(run: Run) -> dict[str, str]:
    return {row.stage: row.state for row in run.status().rows}


def test_a_local_run_and_how_it_ends(run: Run, launcher: Start) -> None:
    process = launcher(run)
    run.now = time.time()
    run.beat("train", age_s=-1)
    assert states(run) == {"prepare": "done", "train": "running", "average": "waiting"}
    assert f"pid {process.pid} on {socket.gethostname()}, running" in run.status().launcher
    assert run.row("average").reason == "train" and run.row("train").eta_s == 1440.0
    process.kill()
    process.wait()
    assert states(run) == {"prepare": "done", "train": "stopped", "average": "not started"}
    assert "the launcher is gone" in run.text() and "gone without a word" in run.text()
    process = launcher(run)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert states(run) == {"prepare": "done", "train": "cancelled", "average": "not started"}
    launcher(run, "fails").wait()
    assert states(run) == {"prepare": "done", "train": "failed", "average": "not started"}
    assert run.row("train").error == "exit code -9. The log has no more"


def test_another_process_of_the_same_number_is_not_the_launcher(run: Run) -> None:
    run.stage("train")
    me = psutil.Process()
    facts: dict[str, Any] = {"pid": me.pid, "host": socket.gethostname(), "ended": None}
    with (run.folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert launcher_record.is_alive(run.folder, run.record(**facts, process_started=me.create_time()))
        assert not launcher_record.is_alive(run.folder, run.record(**facts, process_started=me.create_time() - 60))
        there = run.record(**facts | {"host": "elsewhere"}, process_started=me.create_time())
        assert not launcher_record.is_alive(run.folder, there)
    assert not launcher_record.is_alive(run.folder, run.record(**facts, process_started=me.create_time()))


def test_a_run_that_has_not_begun_is_not_over(run: Run) -> None:
    run.executor = "local"
    run.stage("train")
    assert run.row("train").state == "not started" and not run.status().over
    run.done("train")
    assert run.status().over


def test_a_launcher_on_another_host_is_seen_by_its_heartbeats(run: Run) -> None:
    run.executor = "local"
    run.stage("train")
    run.record(host="elsewhere", ended=None)
    run.beat("train")
    assert run.row("train").state == "running" and "launched on elsewhere" in run.text()
    run.beat("train", age_s=90, time=run.now - 900)
    assert run.row("train").state == "unknown" and "ask on elsewhere" in run.text()
