"""What clusters do to jobs, on a real Slurm: requeue, nodes that go down, a controller that is away, two runs at once."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from launchers.executors import slurm
from launchers.following import run_status
from launchers.following.stage_status import Row
from launchers.here.display import Display
from tests.slurm.toy_jobs import CONFIG, ended, logs, stage, state, toy, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(300)]


def start(run: Path, config: slurm.Config = CONFIG) -> None:
    slurm.submit(config, [stage(run, "train", toy("preempt", run / "train"))], Display())


def waiting(run: Path) -> str:
    """The job of a stage that was started, once it waits to be disturbed."""
    wait_until(lambda: (run / "train" / "waiting").exists(), run)
    return str(json.loads((run / "jobs.json").read_text())["train"]["job"])


def scontrol(*words: str) -> None:
    subprocess.run(["scontrol", *words], timeout=60, check=True)


def signal_its_time_is_up(job: str) -> None:
    """What --signal=B:USR1@120 does when 120 s are left."""
    subprocess.run(["scancel", "--signal=USR1", "--batch", job], timeout=60, check=True)


def row_of(run: Path) -> Row:
    """What status.py would say of the stage."""
    (run / "train" / "config.yaml").touch()
    return run_status.status(run_status.look(run)).rows[0]


def is_requeued(run: Path) -> bool:
    row = row_of(run)
    return (row.state, row.retries) == ("requeued", 1)


def attempts(run: Path) -> int:
    return (run / "train" / "attempts").read_text().count("\n")


def test_what_is_put_back_in_the_queue_goes_on(cluster: Path) -> None:
    """By the signal before its time limit, by a person, and by a job of higher priority, which stays until it has been seen
    to wait; all at once, as Slurm lets each wait some seconds."""
    signalled, requeued, preempted = (cluster / name for name in ("signalled", "requeued", "preempted"))
    for run, node in ((signalled, "node1"), (requeued, "node1"), (preempted, "node2")):
        start(run, replace(CONFIG, extra_sbatch={"nodelist": node}))
    signal_its_time_is_up(waiting(signalled))
    scontrol("requeue", waiting(requeued))
    waiting(preempted)
    seen = cluster / "seen"
    urgent = ["--partition=urgent", "--nodelist=node2", "--exclusive", "--output=/dev/null"]
    until_seen = f"--wrap=while [ ! -e {seen} ]; do sleep 0.2; done"
    subprocess.run(["sbatch", "--parsable", *urgent, until_seen], timeout=60, check=True, capture_output=True)
    try:
        wait_until(lambda: is_requeued(preempted), preempted, poll_s=0.5)
    finally:
        seen.touch()
    for run in (signalled, requeued, preempted):
        found = ended(run)["train"]
        assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), logs(run)
        assert (run / "train" / "attempts").read_text() == "0\n1\n"


@pytest.mark.soak
def test_a_job_whose_time_is_up_goes_on(cluster: Path) -> None:
    """With a limit of a minute, the signal comes when slurmctld looks at its jobs' times next."""
    run = cluster / "time_limit"
    slurm.submit(CONFIG, [stage(run, "train", toy("preempt", run / "train"), time="00:01:00")], Display())
    found = ended(run)["train"]
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), logs(run)
    assert attempts(run) == 2


def test_a_job_that_takes_too_much_memory_stops_with_advice(cluster: Path) -> None:
    run = cluster / "memory"
    slurm.submit(replace(CONFIG, mem="300"), [stage(run, "train", toy("eat", run / "train"))], Display())
    found = ended(run)["train"]
    assert (found["JobState"], found["ExitCode"], found["Restarts"]) == ("FAILED", "1:0", "0"), logs(run)
    row = row_of(run)
    assert row.state == "failed" and "memory ran out" in row.error and "raise cluster.mem" in row.advice


def test_a_job_whose_node_goes_down_goes_on_elsewhere(cluster: Path) -> None:
    run = cluster / "node_down"
    start(run)
    node = state(waiting(run))["NodeList"]
    scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        found = ended(run)["train"]
    finally:
        scontrol("update", f"NodeName={node}", "State=RESUME")
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), logs(run)
    assert found["NodeList"] != node and attempts(run) == 2


def test_a_cancelled_stage_is_submitted_again(cluster: Path) -> None:
    run = cluster / "cancelled"
    start(run)
    job = waiting(run)
    planned = stage(run, "train", toy("preempt", run / "train"))
    with pytest.raises(ValueError, match=f"stage train is job {job}, which has not ended"):
        slurm.check(CONFIG, [planned])
    subprocess.run(["scancel", job], timeout=60, check=True)
    assert ended(run)["train"]["JobState"] == "CANCELLED"
    slurm.check(CONFIG, [planned])
    slurm.submit(CONFIG, [planned], Display())
    assert ended(run)["train"]["JobState"] == "COMPLETED", logs(run)
    assert attempts(run) == 2


def test_jobs_outlive_their_controller(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cluster / "controller_away"
    impatient = cluster / "impatient.conf"
    impatient.write_text(re.sub("MessageTimeout=.*", "MessageTimeout=3", (cluster / "slurm.conf").read_text()))
    start(run)
    job = waiting(run)
    controller = psutil.Process(int((cluster / "slurmctld.pid").read_text()))
    controller.terminate()
    controller.wait(60)
    try:
        monkeypatch.setenv("SLURM_CONF", str(impatient))
        with pytest.raises(ValueError, match="Unable to contact slurm controller"):
            slurm.check(CONFIG, [stage(run, "train", toy("preempt", run / "train"))])
    finally:
        subprocess.run(["slurmctld", "-f", cluster / "slurm.conf"], timeout=60, check=True)
    wait_until(lambda: subprocess.run(["scontrol", "ping"], capture_output=True, timeout=60).returncode == 0, run)
    monkeypatch.setenv("SLURM_CONF", str(cluster / "slurm.conf"))
    signal_its_time_is_up(job)
    wait_until(lambda: is_requeued(run), run, poll_s=0.5)
    subprocess.run(["scancel", job], timeout=60, check=True)


def test_two_runs_at_once_do_not_meet(cluster: Path) -> None:
    """Each with a server of its own, asked by the ranks of its own stage, which meet on a port of their own."""
    runs = [cluster / "first", cluster / "second"]
    for run in runs:
        address = run / "train" / "server.json"
        (run / "prepare").mkdir(parents=True)
        (run / "prepare" / "ready.json").write_text("{}")
        server = toy("serve", address, "server", service=True, ready_file=str(address))
        slurm.submit(CONFIG, [stage(run, "train", server, toy("train", run / "train", ranks=2), gpus=1)], Display())
    for run in runs:
        assert ended(run)["train"]["JobState"] == "COMPLETED", logs(run)
        assert len(json.loads((run / "train" / "done.json").read_text())["said"]) == 2
