"""Launching over ssh: a real sshd, a real Slurm, and the tree as a commit of its own."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.launchers import ssh_server
from tests.slurm.toy_jobs import ended

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(300)]
CLUSTER = """
defaults: [slurm, _self_]
python: {python}
gpus_per_node: 2
check_paths: false
env_from: [TOKEN]
setup: ['echo "a token of $(printf %s "$TOKEN" | wc -c) characters"']
ssh: {ssh}
"""
LOGS = ["launchers/logs.py", "toy_models", "teacher_corpus"]
SECRET = secrets.token_hex(20)
RUN = ["launchers/run.py", "+recipe=toy_models", "only=[teacher_corpus]", "sizes.teacher_rows=20", "cluster=laptop"]


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture
def laptop(cluster: Path, tmp_path: Path) -> Iterator[Path]:
    """A checkout whose conf/cluster/laptop.yaml launches over ssh, committed."""
    if why := ssh_server.missing():
        pytest.skip(why)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    checkout = tmp_path / "checkout"
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    (tmp_path / "ssh").mkdir()
    with ssh_server.started(tmp_path / "ssh") as options:
        env = {"SLURM_CONF": str(cluster / "slurm.conf")}
        there = {"host": "127.0.0.1", "path": str(cluster / "there"), "python": sys.executable}
        text = CLUSTER.format(python=sys.executable, ssh=json.dumps({**there, "env": env, "options": options}))
        (checkout / "conf" / "cluster" / "laptop.yaml").write_text(text)
        git(checkout, "init")
        git(checkout, "add", "--all")
        git(checkout, "commit", "-m", "all")
        yield checkout


def give(checkout: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command as the laptop's user gives it, without Slurm's own variables."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "RUNS_DIR"))}
    argv = [sys.executable, *words]
    return subprocess.run(
        argv, cwd=checkout, env={**env, "TOKEN": SECRET}, capture_output=True, text=True, timeout=250, check=False
    )


def test_a_run_launched_over_ssh(cluster: Path, laptop: Path) -> None:
    (laptop / "README.md").write_text("changed\n")
    refused = give(laptop, *RUN)
    assert refused.returncode == 2 and "not committed are README.md: commit, or" in refused.stderr
    git(laptop, "checkout", "README.md")
    launched = give(laptop, *RUN)
    assert launched.returncode == 0, launched.stderr
    run = cluster / "there" / "runs" / "toy_models"
    assert "teacher_corpus     job" in launched.stderr and f"run folder: {run}" in launched.stderr
    assert ended(run)["teacher_corpus"]["JobState"] == "COMPLETED"
    found = json.loads(give(laptop, "launchers/status.py", "toy_models", "--json").stdout)
    corpus = next(stage for stage in found["stages"] if stage["stage"] == "teacher_corpus")
    assert (found["run"], corpus["state"]) == (str(run), "done")
    log = give(laptop, *LOGS, "--lines", "5")
    assert log.returncode == 0 and str(run) in log.stderr, log.stderr
    assert "a token of 40 characters" in give(laptop, *LOGS, "--process", "slurm").stdout
    assert "none of the jobs that were launched waits" in give(laptop, "launchers/cancel.py", "toy_models").stdout
    logins = (laptop.parent / "ssh" / "log").read_text().count("Accepted publickey")
    assert logins == 5, "one for each command, whatever it does there"
    for place in (cluster / "there", laptop / "runs", cluster / "log", laptop.parent / "ssh"):
        assert subprocess.run(["grep", "-rqF", SECRET, place], check=False).returncode == 1, place
    manifest = json.loads((run / "teacher_corpus" / "manifest.json").read_text())
    assert (
        manifest["code_version"] == json.loads((laptop / "runs" / "toy_models" / "remote.json").read_text())["commit"]
    )
