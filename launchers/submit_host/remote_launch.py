"""Launching on the machine that jobs are submitted from, by the launcher of the same commit there.

Composing, here, finds what is wrong with the words; planning, preflight and sbatch are the host's.
"""

import os
from pathlib import Path

from omegaconf import DictConfig

from launchers.here.display import Display
from launchers.planning import preflight
from launchers.planning.preflight import Findings
from launchers.submit_host import remote_run, tree
from launchers.submit_host.link import SshHost, connected
from launchers.submit_host.remote_run import RemoteRun

ROOT = Path(__file__).resolve().parents[2]


def launch(cfg: DictConfig, host: SshHost, env_from: list[str], words: list[str], display: Display) -> int:
    """Send the committed tree to the host and launch with the same words there; the exit code is that launcher's.

    Raises:
        ValueError: the tree cannot be sent, or the host does not do.
    """
    found = Findings()
    preflight.look_at_secrets(found, env_from, host.env, "cluster.ssh.env")
    found.refuse()
    commit, changed = tree.committed(ROOT, host.allow_dirty)
    if changed:
        display.line(f"warning: not committed, so not sent: {tree.some_of(changed)}", style="yellow")
    with connected(host) as link:
        sent = tree.send(link, ROOT, commit)
        run_dir = _run_dir(cfg, remote_run.runs_dir(host, sent.folder))
        there = RemoteRun(host, sent, os.path.join(sent.tree, run_dir))
        remote_run.write(there)
        display.line(f"launching on {host}, in {sent.tree}")
        secrets = {name: os.environ[name] for name in env_from}
        return remote_run.run(link, there, ["launchers/run.py", *words, "++cluster.ssh=null"], secrets)


def _run_dir(cfg: DictConfig, runs_dir: str) -> str:
    """The run's folder where RUNS_DIR is that."""
    before = os.environ.get("RUNS_DIR")
    os.environ["RUNS_DIR"] = runs_dir
    try:
        return str(cfg.run_dir)
    finally:
        os.environ.pop("RUNS_DIR")
        if before is not None:
            os.environ["RUNS_DIR"] = before
