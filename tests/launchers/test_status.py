"""What a run is said to be at, from its files, from stand-ins of Slurm's clients, and from real launchers."""

import fcntl
import json
import os
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

from launchers import status
from launchers.following import launcher_record, status_table
from launchers.following import run_status as run_statuses
from launchers.slurm import client as slurm_client
from launchers.slurm import jobs as slurm_jobs
from tests.conftest import ROOT
from tests.launchers.followed_run import Clients, Run


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    return Clients.on_path(tmp_path, monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "sft")


def text(run: Run, width: int | None = None) -> str:
    return "\n".join(line for line, _ in status_table.lines(run.status(), width))


def test_a_run_on_its_way(run: Run, clients: Clients) -> None:
    run.stage("prepare", "100")
    run.stage("solve", "101", ("prepare",), shards=5)
    run.stage("train", "102", ("solve",))
    run.stage("evaluate", "103", ("train",))
    run.done("prepare")
    run.done("solve/shard_0")
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 60))
    clients.add("101_0", "COMPLETED", run.folder, "solve", nodes="n1", start=began)
    clients.add("101_1", "RUNNING", run.folder, "solve", nodes="n2", start=began, used="1:00")
    clients.add("101_[2-4%1]", "PENDING", run.folder, "solve", reason="JobArrayTaskLimit")
    clients.add("102", "PENDING", run.folder, "train", reason="Dependency")
    clients.add("103", "PENDING", run.folder, "evaluate", reason="Dependency")
    solve = run.row("solve")
    assert (solve.state, solve.jobs, solve.nodes) == ("running", ["101"], ["n2"])
    assert solve.tasks == {"running": 1, "pending": 3, "done": 1}
    assert solve.elapsed_s == pytest.approx(60, abs=5)
    assert solve.eta_s == pytest.approx(4 * 60, abs=20), "one task a minute, four to go"
    assert run.row("prepare").state == "done" and run.row("prepare").result == "1,204 rows, 31 dropped"
    assert (run.row("train").state, run.row("train").reason) == ("waiting", "solve")
    assert "waiting for train" in text(run) and "1/5 done, 1 running, 3 pending" in text(run)
    assert not run.status().over


@pytest.mark.parametrize(
    ("state", "more", "row", "said"),
    [
        ("PENDING", {"reason": "Resources"}, "pending", "(Resources)"),
        ("PENDING", {"reason": "PartitionTimeLimit"}, "pending", "lower stages.train.resources.time"),
        ("PENDING", {"reason": "JobHeldUser"}, "pending", "scontrol release 7"),
        ("PENDING", {"reason": "DependencyNeverSatisfied"}, "pending", "what it waits for failed"),
        ("PENDING", {"reason": "BeginTime", "restarts": "2"}, "requeued", "(BeginTime)"),
        ("REQUEUE_HOLD", {}, "requeued", "(REQUEUE_HOLD)"),
        ("CONFIGURING", {}, "running", "(configuring)"),
        ("COMPLETED", {}, "unknown", "train/_DONE is not here"),
        ("CANCELLED", {}, "cancelled", "the command that launched it"),
        ("FAILED", {"status": "768", "nodes": "n4"}, "failed", "exit code 3, on n4"),
        ("FAILED", {"status": "9"}, "failed", "ended by signal 9"),
        ("FAILED", {"status": str(85 << 8)}, "failed", "cluster.max_requeues"),
        ("OUT_OF_MEMORY", {"status": "9"}, "failed", "raise cluster.mem"),
        ("TIMEOUT", {}, "failed", "stages.train.resources.time"),
        ("NODE_FAIL", {"nodes": "n9"}, "failed", "a node went down, on n9"),
        ("PREEMPTED", {}, "failed", "higher priority"),
    ],
)
def test_a_jobs_state_and_what_it_means(
    run: Run, clients: Clients, state: str, more: dict[str, str], row: str, said: str
) -> None:
    run.stage("train", "7")
    clients.add("7", state, run.folder, "train", **more)
    found = run.row("train")
    assert found.state == row and found.retries == int(more.get("restarts", 0))
    assert said in text(run)
    assert run.status().over == (row in ("failed", "cancelled", "unknown"))


def test_why_a_failed_job_failed_and_what_that_kept_from_running(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    run.stage("average", "8", ("train",))
    run.stage("evaluate", "9", ("average",))
    clients.add("7", "FAILED", run.folder, "train", status="256")
    clients.add("8", "CANCELLED", run.folder, "average")
    clients.add("9", "PENDING", run.folder, "evaluate", reason="Dependency")
    run.write("train/error.json", {"error": "row 7 has no problem", "advice": "mend row 7"}, age_s=200)
    assert run.row("train").error == "FAILED: exit code 1", "that error is of an earlier attempt"
    run.write("train/error.json", {"error": "row 7 has no problem", "advice": "mend row 7"})
    assert (run.row("train").error, run.row("train").advice) == ("row 7 has no problem", "mend row 7")
    assert run.row("average").reason == "train failed"
    assert f"launchers/logs.py {run.folder} train" in text(run)


def test_one_failed_shard_of_many(run: Run, clients: Clients) -> None:
    run.stage("solve", "7", shards=4)
    for index in (0, 1):
        run.done(f"solve/shard_{index}")
    clients.add("7_2", "OUT_OF_MEMORY", run.folder, "solve", nodes="n3")
    clients.add("7_3", "RUNNING", run.folder, "solve", nodes="n3")
    found = run.row("solve")
    assert found.state == "running" and found.tasks == {"running": 1, "failed": 1, "done": 2}
    assert found.failed_parts == ["shard_2"] and "OUT_OF_MEMORY" in found.error
    assert "solve (shard_2): OUT_OF_MEMORY" in text(run) and f"launchers/logs.py {run.folder} solve" in text(run)
    assert "2/4 done, 1 failed, 1 running" in text(run) and "n3" in text(run).splitlines()[2]
    narrow = text(run, 52).splitlines()
    assert "n3" not in narrow[2] and "2/4 done, 1 failed, 1 running" in narrow[2], "where it runs is what is left out"


def test_results_of_before_the_last_submission_are_not_taken_for_its_own(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    run.done("train", age_s=500)
    clients.add("7", "RUNNING", run.folder, "train")
    assert run.row("train").state == "running"
    clients.forget()
    assert run.row("train").state == "unknown"
    run.done("train", age_s=5)
    assert run.row("train").state == "done"


def test_a_job_of_somebody_else_with_the_same_number_is_not_ours(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    clients.add("7", "RUNNING", Path("/runs/another"), "train", nodes="n1")
    assert (run.row("train").state, run.row("train").nodes) == ("unknown", [])


def test_tasks_beyond_the_largest_array_are_in_the_next_one(run: Run, clients: Clients) -> None:
    run.stage("solve", "7", shards=5)
    run.jobs["solve"] |= {"jobs": ["7", "8"], "offsets": [0, 3], "array": "0-1,3-4"}
    run.write("jobs.json", run.jobs)
    clients.add("7_[0-1]", "PENDING", run.folder, "solve", reason="Priority")
    clients.add("8_0", "RUNNING", run.folder, "solve")
    clients.add("8_1", "FAILED", run.folder, "solve", status="256")
    run.done("solve/shard_2", age_s=5000)  # done before: not submitted again
    found = run.row("solve")
    assert found.tasks == {"running": 1, "pending": 2, "failed": 1, "done": 1}
    assert found.failed_parts == ["shard_4"] and found.jobs == ["7", "8"]
    assert "--jobs=7,8 " in clients.calls[0]


def test_what_slurm_forgot_is_in_the_accounts_where_there_are_any(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    run.stage("average", "8", ("train",))
    clients.answer("squeue", "")
    row = run.row("train")
    assert (row.state, row.reason) == ("unknown", "Slurm has forgotten its job") and "sacct" in row.error
    clients.answer("sacct", "7|TIMEOUT|n1|3600|2026-11-21T18:00:00|2026-11-21T19:00:00|0:0\n")
    assert (run.row("train").state, run.row("train").elapsed_s) == ("failed", 3600.0)
    run.done("train")
    run.done("average")
    before = len(clients.calls)
    assert {row.state for row in run.status().rows} == {"done"}
    assert [call.split()[0] for call in clients.calls[before:]] == ["squeue"], "of what is done nothing is asked"


def test_without_slurm_the_files_are_told(run: Run, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    run.stage("prepare", "6")
    run.stage("train", "7", ("prepare",))
    run.stage("average", "8", ("train",))
    run.done("prepare")
    run.beat("train", loss=0.41234)
    clients.script("squeue.answer", "#!/bin/bash\nexec sleep 60\n")
    monkeypatch.setattr(slurm_jobs, "client", lambda argv, limit: slurm_client.client(argv, 0.2))
    states = {row.stage: row.state for row in run.status().rows}
    assert states == {"prepare": "done", "train": "running", "average": "unknown"}
    assert "Slurm is not heard, so this is from files alone: squeue did not answer in 0.2 s" in text(run)
    assert "120/3,000 steps  2/s  loss 0.4123" in text(run)


def test_a_heartbeat_of_an_earlier_attempt_says_nothing(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    clients.add("7", "RUNNING", run.folder, "train", used="5:00", restarts="1")
    run.write("train/.lock", "", age_s=30)
    run.beat("train", age_s=40)
    assert run.row("train").beat is None
    run.beat("train", age_s=20)
    assert run.row("train").eta_s == 1440.0 and not run.row("train").error


def test_a_silent_stage_may_hang(run: Run, clients: Clients) -> None:
    run.began -= 10_000
    run.stage("train", "7")
    clients.add("7", "RUNNING", run.folder, "train", used="2:00:00")
    run.beat("train", age_s=1200)
    assert "no heartbeat for 20:0" in text(run)


def test_slurm_is_asked_once_however_many_shards_there_are(run: Run, clients: Clients) -> None:
    run.stage("solve", "7", shards=600)
    run.stage("grade", "8", ("solve",), shards=600)
    clients.add("7_[0-599%8]", "PENDING", run.folder, "solve", reason="Priority")
    clients.add("8_[0-599%8]", "PENDING", run.folder, "grade", reason="Dependency")
    assert run.row("solve").tasks == {"pending": 600} and run.row("grade").tasks == {"waiting": 600}
    assert len(clients.calls) == 2 and all(len(call) < 300 for call in clients.calls)


def test_garbage_in_the_files_is_survived(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    clients.add("7", "RUNNING", run.folder, "train")
    for broken in ("", "{", "[]", "7", '{"done": 3}', "\x00\xff"):
        for name in ("heartbeat.json", "error.json", "manifest.json", "usage.json"):
            run.write(f"train/{name}", broken)
        assert run.row("train").state == "running" and run.row("train").beat is None
    run.write("train/config.yaml", "uses: x\n")
    record = json.loads((run.folder / "launcher.json").read_text())
    for broken in ("{", "[]", '{"pid": 3}', json.dumps(record | {"stages": []}), json.dumps(record | {"todo": 3})):
        run.write("launcher.json", broken)
        assert run.row("train").state == "running", "found on disk"


def test_without_a_launchers_record_the_stages_are_those_on_disk(run: Run, clients: Clients) -> None:
    run.stage("write", "7")
    run.stage("grade", "8", ("write",), parts=("b", "a"))
    (run.folder / "launcher.json").unlink()
    for age, path in ((30, "write"), (20, "grade/a"), (20, "grade/b"), (10, "grade.old1")):
        run.write(f"{path}/config.yaml", "uses: x\n", age_s=age)
    clients.add("7", "RUNNING", run.folder, "write")
    clients.add("8_[0-1]", "PENDING", run.folder, "grade", reason="Dependency")
    rows = run.status().rows
    assert [(row.stage, row.part, row.state) for row in rows] == [
        ("write", "", "running"), ("grade", "a", "waiting"), ("grade", "b", "waiting")
    ]  # fmt: skip
    assert rows[1].reason == "write"


def test_a_narrow_terminal_keeps_every_line_within_it(run: Run, clients: Clients) -> None:
    run.stage("a_stage_with_a_long_name", "1234567", parts=tuple(f"variant_{i}" for i in range(3)))
    clients.add("1234567_[0-2]", "PENDING", run.folder, "a_stage_with_a_long_name", reason="QOSMaxGRESPerUser")
    table = [line for line in text(run, 60).splitlines() if line.startswith("a_stage")]
    assert len(table) == 3 and max(map(len, table)) == 60 and table[0].endswith("…")
    assert all("…" not in line for line in text(run).splitlines())


# Launchers on this machine: a process that holds the folder's lock, records itself, and runs a stage that sleeps.
LAUNCHER = """
import fcntl, pathlib, signal, sys, types
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
        signal.pause()
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
    run.beat("train", age_s=-1)
    assert states(run) == {"prepare": "done", "train": "running", "average": "waiting"}
    assert f"pid {process.pid} on {socket.gethostname()}, running" in run.status().launcher
    assert run.row("average").reason == "train" and run.row("train").eta_s == 1440.0
    process.kill()
    process.wait()
    assert states(run) == {"prepare": "done", "train": "stopped", "average": "not started"}
    assert "the launcher is gone" in text(run) and "gone without a word" in text(run)
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
    assert run.row("train").state == "running" and "launched on elsewhere" in text(run)
    run.beat("train", age_s=90, time=time.time() - 900)
    assert run.row("train").state == "unknown" and "ask on elsewhere" in text(run)


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
