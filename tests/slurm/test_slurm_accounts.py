"""Status from a real slurmdbd's accounts, of jobs that the controller has forgotten."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launchers.executors import slurm
from launchers.following import run_status
from launchers.here.display import Display
from launchers.slurm.client import client
from tests.conftest import ROOT
from tests.slurm.toy_jobs import CONFIG, ended, stage, toy, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.soak, pytest.mark.timeout(300)]
SCRIPT = ROOT / "tests" / "slurm" / "accounts.sh"


@pytest.fixture
def accounts(cluster: Path) -> Iterator[Path]:
    started = subprocess.run([SCRIPT, "start", cluster], capture_output=True, text=True, timeout=120, check=False)
    try:
        if started.returncode != 0:
            pytest.skip(f"no slurmdbd here: {' '.join(started.stderr.split()[-30:])}")
        yield cluster
    finally:
        subprocess.run([SCRIPT, "stop", cluster], timeout=60, check=True)


def forget_all_jobs(cluster: Path) -> None:
    controller = psutil.Process(int((cluster / "slurmctld.pid").read_text()))
    controller.terminate()
    controller.wait(60)
    subprocess.run(["slurmctld", "-c", "-f", cluster / "slurm.conf"], timeout=60, check=True)


def test_what_the_controller_forgot_is_in_the_accounts(accounts: Path) -> None:
    run = accounts / "accounts_run"
    stages = [
        stage(run, "prepare", toy("prepare", run / "prepare")),
        stage(run, "train", toy("fail", run), after=("prepare",)),
        stage(run, "average", toy("prepare", run), after=("train",)),
    ]
    slurm.submit(CONFIG, stages, Display())
    jobs = [found["JobId"] for found in ended(run).values()]
    wait_until(lambda: "FAILED" in client(["sacct", "--jobs", ",".join(jobs)]), run)
    forget_all_jobs(accounts)
    wait_until(lambda: subprocess.run(["scontrol", "ping"], capture_output=True, timeout=90).returncode == 0, run)
    for each in stages:
        (each.folder / "config.yaml").touch()
    (run / "prepare" / "_DONE").touch()
    states = {row.stage: (row.state, row.error) for row in run_status.status(run_status.look(run)).rows}
    assert states["prepare"][0] == "done" and states["average"][0] == "cancelled"
    assert states["train"][0] == "failed" and states["train"][1].startswith("FAILED: exit code 7, on node")
