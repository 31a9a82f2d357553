"""What a run on Slurm is said to be at, from its files and from stand-ins of Slurm's clients."""

import json
import time
from pathlib import Path

import pytest

from launchers.slurm import client as slurm_client
from launchers.slurm import jobs as slurm_jobs
from tests.launchers.followed_run import Clients, Run


def test_a_run_on_its_way(run: Run, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time())  # Slurm tells whole seconds
    monkeypatch.setattr(time, "time", lambda: now)
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
    assert solve.elapsed_s == 60
    assert solve.eta_s == pytest.approx(4 * 60), "one task a minute, four to go"
    assert run.row("prepare").state == "done" and run.row("prepare").result == "1,204 rows, 31 dropped"
    assert (run.row("train").state, run.row("train").reason) == ("waiting", "solve")
    assert "waiting for train" in run.text() and "1/5 done, 1 running, 3 pending" in run.text()
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
    assert said in run.text()
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
    assert f"launchers/logs.py {run.folder} train" in run.text()


def test_one_failed_shard_of_many(run: Run, clients: Clients) -> None:
    run.stage("solve", "7", shards=4)
    for index in (0, 1):
        run.done(f"solve/shard_{index}")
    clients.add("7_2", "OUT_OF_MEMORY", run.folder, "solve", nodes="n3")
    clients.add("7_3", "RUNNING", run.folder, "solve", nodes="n3")
    found = run.row("solve")
    assert found.state == "running" and found.tasks == {"running": 1, "failed": 1, "done": 2}
    assert found.failed_parts == ["shard_2"] and "OUT_OF_MEMORY" in found.error
    assert "solve (shard_2): OUT_OF_MEMORY" in run.text() and f"launchers/logs.py {run.folder} solve" in run.text()
    assert "2/4 done, 1 failed, 1 running" in run.text() and "n3" in run.text().splitlines()[2]
    narrow = run.text(52).splitlines()
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
    assert "Slurm is not heard, so this is from files alone: squeue did not answer in 0.2 s" in run.text()
    assert "120/3,000 steps  2/s  loss 0.4123" in run.text()


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
    assert "no heartbeat for 2" in run.text()


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
    table = [line for line in run.text(60).splitlines() if line.startswith("a_stage")]
    assert len(table) == 3 and max(map(len, table)) == 60 and table[0].endswith("…")
    assert all("…" not in line for line in run.text().splitlines())


def test_a_job_that_a_person_submitted_is_seen_by_its_heartbeat(run: Run, clients: Clients) -> None:
    run.stage("train", "7")
    run.stage("average")  # by hand and never launched
    ended = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(run.now - 60))
    clients.add("7", "CANCELLED", run.folder, "train", end=ended)
    assert run.row("train").state == "cancelled" and run.row("average").state == "not started"
    run.beat("train", age_s=70)
    assert run.row("train").state == "cancelled", "its last words before the end"
    run.beat("train", age_s=5)
    run.beat("average", age_s=5)
    for name in ("train", "average"):
        assert run.row(name).state == "running" and "jobs.json does not name" in run.row(name).reason
    assert not run.status().over and "120/3,000 steps" in run.text()
    run.done("train", age_s=1)
    assert run.row("train").state == "done"
