"""The whole pipeline as a chain of jobs on a real Slurm of two nodes: cancelled, launched again, and what a local run makes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launchers.slurm.client import client
from tests.e2e.small_pipeline import SMALL, data_hash, losses
from tests.slurm.toy_jobs import wait_until

WAIT = (400, 0.5)
"""Seconds, in all and between two looks."""
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


def jobs(run: Path) -> dict[str, str]:
    return {stage: record["job"] for stage, record in json.loads((run / "jobs.json").read_text()).items()}


def states(run: Path) -> dict[str, set[str]]:
    """Stage -> the states of its job's elements."""
    stage_of = {job: stage for stage, job in jobs(run).items()}
    found: dict[str, set[str]] = {}
    for line in client(["squeue", "--states=all", "--noheader", "--array", "--format=%F %T"]).splitlines():
        job, state = line.split()
        if job in stage_of:
            found.setdefault(stage_of[job], set()).add(state)
    return found


def _logs(run: Path) -> str:
    texts = (f"--- {path}\n{path.read_text()[-3000:]}" for path in sorted(run.rglob("*.log")))
    return "\n".join([json.dumps({stage: sorted(found) for stage, found in states(run).items()}), *texts])


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_pipeline_on_two_nodes(cluster: Path, whole_run: Path, finish: Callable[..., str]) -> None:
    """Generation as arrays with their servers beside them, training with a tensor-parallel rank on either node."""
    run = cluster / "pipeline"
    words = ["cluster=slurm", f"cluster.python={sys.executable}", "cluster.gpus_per_node=2", f"run_dir={run}"]
    words += ["cluster.check_paths=false", "sizes.train.nodes=2"]  # the nodes are this machine
    finish(*SMALL, *words)
    wait_until(lambda: (run / "solve_seeds" / "logs" / "main.log").exists(), run, *WAIT)
    subprocess.run(["scancel", *jobs(run).values()], timeout=60, check=True)
    wait_until(lambda: all(found <= ENDED for found in states(run).values()), run, *WAIT)
    finish(*SMALL, *words)
    wait_until(lambda: all(found <= ENDED for found in states(run).values()), run, *WAIT)
    last = states(run)
    assert set().union(*last.values()) == {"COMPLETED"}, _logs(run)
    assert len(jobs(run)) == len(last) and "solve_new" in last
    assert data_hash(run) == data_hash(whole_run)
    assert losses(run) == losses(whole_run)
    assert "checkpoint_6" in (run / "report.html").read_text()
