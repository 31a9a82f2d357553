"""What clusters do to jobs, on a real Slurm: requeue, nodes that go down, a controller that is away, two runs at once."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from launchers.display import Display
from launchers.executors import slurm
from tests.slurm.toy_jobs import CONFIG, WAIT_S, ended, logs, stage, state, toy

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(300)]


def wait_until(condition: Callable[[], object], run: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, logs(run)
        time.sleep(0.1)


def waiting(run: Path) -> str:
    """The job of a stage that has started and waits to be disturbed."""
    slurm.submit(CONFIG, [stage(run, "train", toy("preempt", run / "train"))], Display())
    wait_until(lambda: (run / "train" / "waiting").exists(), run)
    return str(json.loads((run / "jobs.json").read_text())["train"]["job"])


def scontrol(*words: str) -> None:
    subprocess.run(["scontrol", *words], timeout=20, check=True)


def attempts(run: Path) -> int:
    return (run / "train" / "attempts").read_text().count("\n")


def test_a_requeued_job_goes_on(cluster: Path) -> None:
    run = cluster / "requeued"
    scontrol("requeue", waiting(run))
    found = ended(run)["train"]
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), logs(run)
    assert attempts(run) == 2


def test_a_job_whose_node_goes_down_goes_on_elsewhere(cluster: Path) -> None:
    run = cluster / "node_down"
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
    job = waiting(run)
    planned = stage(run, "train", toy("preempt", run / "train"))
    with pytest.raises(ValueError, match=f"stage train is job {job}, which has not ended"):
        slurm.check(CONFIG, [planned])
    subprocess.run(["scancel", job], timeout=20, check=True)
    assert ended(run)["train"]["JobState"] == "CANCELLED"
    slurm.check(CONFIG, [planned])
    slurm.submit(CONFIG, [planned], Display())
    assert ended(run)["train"]["JobState"] == "COMPLETED", logs(run)
    assert attempts(run) == 2


def test_jobs_outlive_their_controller(cluster: Path) -> None:
    run = cluster / "controller_away"
    job = waiting(run)
    controller = psutil.Process(int((cluster / "slurmctld.pid").read_text()))
    controller.terminate()
    controller.wait(30)
    try:
        refusal = "slurm|controller|did not answer"
        with pytest.raises(ValueError, match=refusal):
            slurm.check(CONFIG, [stage(run, "train", toy("preempt", run / "train"))])
    finally:
        subprocess.run(["slurmctld", "-f", cluster / "slurm.conf"], timeout=30, check=True)
    wait_until(lambda: subprocess.run(["scontrol", "ping"], capture_output=True, timeout=20).returncode == 0, run)
    subprocess.run(["scancel", "--signal=USR1", "--batch", job], timeout=20, check=True)
    found = ended(run)["train"]
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), logs(run)


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
