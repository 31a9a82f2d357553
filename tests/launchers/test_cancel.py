"""Stopping a run: on Slurm through a stand-in of scancel, here with a real launcher."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from launchers import cancel
from launchers.following import launcher_record
from tests.conftest import ROOT
from tests.launchers.followed_run import Clients, Run
from tests.launchers.process_stages import gone, wait_until


@pytest.fixture
def run(tmp_path: Path, clients: Clients) -> Run:
    """prepare is done, solve runs, train and average wait, grade stands alone."""
    made = Run(tmp_path / "sft")
    made.stage("prepare", "6")
    made.stage("solve", "7", ("prepare",), shards=3)
    made.stage("train", "8", ("solve",))
    made.stage("grade", "9")
    made.stage("average", "10", ("train",))
    made.done("prepare")
    clients.add("6", "COMPLETED", made.folder, "prepare")
    clients.add("7_0", "RUNNING", made.folder, "solve")
    clients.add("7_[1-2]", "PENDING", made.folder, "solve")
    clients.add("8", "PENDING", made.folder, "train", reason="Dependency")
    clients.add("9", "RUNNING", made.folder, "grade")
    clients.add("10", "PENDING", made.folder, "average", reason="Dependency")
    return made


def scancels(clients: Clients) -> list[str]:
    return [call for call in clients.calls if call.startswith("scancel")]


def test_all_jobs_that_have_not_ended_are_cancelled_at_once(
    run: Run, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cancel.cancel(run.folder, []) == 0
    assert scancels(clients) == ["scancel 7 8 9 10"]
    said = capsys.readouterr().out
    assert "cancelled solve: job 7" in said and "prepare" not in said and "goes on from there" in said


def test_of_stages_named_those_that_wait_for_them_are_cancelled_too(run: Run, clients: Clients) -> None:
    assert cancel.cancel(run.folder, ["train"]) == 0
    assert scancels(clients) == ["scancel 8 10"]
    with pytest.raises(ValueError, match=r"no stage 'trian'.*it has: prepare, solve, train, grade, average"):
        cancel.cancel(run.folder, ["trian"])


def test_what_has_ended_is_left_alone(run: Run, clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.forget()
    clients.add("7_[0-2]", "CANCELLED", run.folder, "solve")
    clients.add("8", "COMPLETING", run.folder, "train")
    clients.add("9", "RUNNING", Path("/runs/another"), "grade")
    assert cancel.cancel(run.folder, []) == 0
    assert not scancels(clients) and "nothing to cancel" in capsys.readouterr().out


def test_a_dead_controller_cancels_nothing_and_says_so(
    run: Run, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    clients.script("scancel.answer", "#!/bin/bash\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    assert cancel.cancel(run.folder, []) == 1
    assert "not known what was cancelled" in capsys.readouterr().err
    clients.script("squeue.answer", "#!/bin/bash\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    before = len(scancels(clients))
    assert cancel.cancel(run.folder, []) == 1 and len(scancels(clients)) == before
    assert "nothing was cancelled: squeue" in capsys.readouterr().err


def test_a_process_that_only_has_the_launchers_number_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "local", executor="local")
    run.stage("train")
    (run.folder / ".lock").touch()
    signals: list[int] = []
    monkeypatch.setattr(cancel.os, "kill", lambda pid, signum: signals.append(signum))
    me = psutil.Process()
    run.record(pid=me.pid, host=socket.gethostname(), process_started=me.create_time(), ended=None)
    assert cancel.cancel(run.folder, []) == 0 and "no launcher runs it" in capsys.readouterr().out
    run.record(pid=me.pid, host="elsewhere", process_started=me.create_time(), ended=None)
    with pytest.raises(ValueError, match="launched on elsewhere"):
        cancel.cancel(run.folder, [])
    assert not signals


def test_a_second_cancel_only_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second SIGTERM would break into the launcher's stopping."""
    run = Run(tmp_path / "local", executor="local")
    run.stage("train")
    record = run.record(pid=os.getpid(), ended=None)
    signals: list[int] = []
    alive = iter([True, False, True, False])
    monkeypatch.setattr(cancel.os, "kill", lambda pid, signum: signals.append(signum))
    monkeypatch.setattr(launcher_record, "is_alive", lambda run_dir, record: next(alive))
    assert cancel.stop_launcher(run.folder, record) == 0 and cancel.stop_launcher(run.folder, record) == 0
    assert signals == [signal.SIGTERM]


def test_a_launcher_that_does_not_end_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "local", executor="local")
    run.stage("train")
    monkeypatch.setattr(cancel.os, "kill", lambda pid, signum: None)
    monkeypatch.setattr(launcher_record, "is_alive", lambda run_dir, record: True)
    monkeypatch.setattr(cancel, "WAIT_S", 0.1)
    assert cancel.stop_launcher(run.folder, run.record(pid=4711)) == 1
    assert "kill -9 4711" in capsys.readouterr().err


def command(script: str, *words: str, runs: Path) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, str(ROOT / "launchers" / script), *words]
    return subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "RUNS_DIR": str(runs)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_real_run_is_followed_and_stopped(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"problem": "p", "generation": "so \\boxed{\\frac{22}{7}}", "expected_answer": "3.1428"}
    rows.write_text("".join(json.dumps({"id": str(number), **row}) + "\n" for number in range(200_000)))
    argv = [sys.executable, str(ROOT / "launchers" / "run.py"), "+recipe=grade", f"input={rows}", "run_name=mine"]
    environment = {**os.environ, "RUNS_DIR": str(tmp_path / "runs")}
    launcher = subprocess.Popen(
        [*argv, "stages.grade.workers=1"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        heartbeat = tmp_path / "runs" / "mine" / "grade" / "heartbeat.json"
        wait_until(lambda: heartbeat.exists() or launcher.poll() is not None)
        children = psutil.Process(launcher.pid).children(recursive=True)
        shown = json.loads(command("status.py", "mine", "--json", runs=tmp_path / "runs").stdout)
        assert [stage["state"] for stage in shown["stages"]] == ["running"] and shown["executor"] == "local"
        assert shown["stages"][0]["beat"]["unit"] and f"pid {launcher.pid} " in shown["launcher"]
        stopped = command("cancel.py", "mine", runs=tmp_path / "runs")
        assert stopped.returncode == 0 and "stopped after" in stopped.stdout, stopped.stderr
        assert launcher.wait(60) == 130
        assert children
        wait_until(lambda: all(gone(child) for child in children))
        shown = command("status.py", "mine", runs=tmp_path / "runs").stdout
        assert "cancelled" in shown and "To go on: the command that launched it" in shown
        again = command("cancel.py", "mine", runs=tmp_path / "runs")
        assert (again.returncode, again.stdout) == (0, "nothing to cancel: no launcher runs it.\n")
    finally:
        launcher.kill()
        launcher.wait()


def test_a_job_that_a_person_submitted_is_left_to_that_person(
    run: Run, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    run.stage("report")
    run.beat("report")
    assert cancel.cancel(run.folder, ["report"]) == 0
    said = capsys.readouterr()
    assert f"look in squeue --me for {run.folder}/report/submit.sh" in said.err and not scancels(clients)
