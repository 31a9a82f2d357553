"""A run whose launcher works on the machine that jobs are submitted from.

<run>/remote.json, here, says where it is, so that status.py, logs.py and cancel.py ask there:
    {"ssh": {"host": "login1", ...}, "folder": "/lustre/me/recipes", "commit": "1f2e3d4c5b6a",
     "run": "/lustre/me/recipes/runs/sft"}
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from launchers.submit_host.link import SSH_FAILED, Link, SshHost, connected
from launchers.submit_host.tree import Sent
from nemo_ext.records.files import write_json_atomic

ROOT = Path(__file__).resolve().parents[2]
REMOTE = "remote.json"
STOP_S = 60.0


@dataclass(frozen=True)
class RemoteRun:
    host: SshHost
    sent: Sent
    run: str
    """The run's folder there."""


def follow(there: RemoteRun, program: str, words: list[str]) -> int:
    """Give one of the commands that follow runs there.

    Raises:
        ValueError: the host cannot be reached.
    """
    with connected(there.host) as link:
        found = link.ask(["test", "-d", there.run])
        if found.returncode != 0:
            raise ValueError(f"cluster.ssh: there is no {there.run} on {there.host}: refused there, or removed since")
        return run(link, there, [program, *words], {})


def run(link: Link, there: RemoteRun, words: list[str], secrets: Mapping[str, str]) -> int:
    """Run a launcher there with its output as ours, to its exit code.

    Raises:
        ValueError: the connection was lost, or given up by a second Ctrl-C.
    """
    env = {**there.host.env, "RUNS_DIR": runs_dir(there.host, there.sent.folder), **secrets}
    env |= {"RECIPE_CODE_VERSION": there.sent.commit, "PYTHONUNBUFFERED": "1"}
    script = f"{there.sent.tree}/launchers/submit_host/on_host.py"
    # a session of its own: Ctrl-C is for us, who end its stdin, and it says how it ended
    child = subprocess.Popen(
        link.argv([there.host.interpreter, script]), stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdin is not None, "asked for"
    try:
        print(json.dumps({"argv": words, "env": env}), file=child.stdin, flush=True)
        code = child.wait()
    except BrokenPipeError:
        code = child.wait()
    except KeyboardInterrupt:
        child.stdin.close()
        code = _wait(child)
    if code == SSH_FAILED:
        raise ValueError(
            f"cluster.ssh: {there.host} has not said how it ended, the connection is gone; look with "
            f"launchers/status.py {Path(there.run).name}, and launch again"
        )
    return code


def _wait(child: "subprocess.Popen[str]") -> int:
    try:
        return child.wait(STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()
        return SSH_FAILED


def runs_dir(host: SshHost, folder: str) -> str:
    """The host's RUNS_DIR, below `folder` (cluster.ssh.path, absolute) where it is relative."""
    return os.path.join(folder, host.env.get("RUNS_DIR", "runs"))


def write(there: RemoteRun) -> None:
    """Say so in <RUNS_DIR>/<the run's name>, here.

    Raises:
        ValueError: a run of this machine has that name, or nothing can be written there.
    """
    folder = Path(os.environ.get("RUNS_DIR", "runs")).absolute() / Path(there.run).name
    if (folder / "launcher.json").exists():
        raise ValueError(f"{folder} is a run of this machine: give this one another run_name=")
    sent = there.sent
    content = {"ssh": asdict(there.host), "folder": sent.folder, "commit": sent.commit, "run": there.run}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / REMOTE, content)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error}. Set RUNS_DIR") from error


def read(folder: Path) -> RemoteRun | None:
    """The run that the folder stands for; None: it is one of this machine's.

    Raises:
        ValueError: remote.json is damaged.
    """
    path = folder / REMOTE
    try:
        content = json.loads(path.read_text())
        return RemoteRun(SshHost(**content["ssh"]), Sent(content["folder"], content["commit"]), str(content["run"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}. Launching again writes it anew") from error


def elsewhere(folder: Path, given: argparse.Namespace) -> int | None:
    """Give this command where the run is; None: it is here. `given`: its `run`, its `stage`(s), if any, and its options."""
    there = read(folder)
    if there is None:
        return None
    program = Path(sys.argv[0]).resolve().relative_to(ROOT)
    return follow(there, str(program), _words(**vars(given) | {"run": there.run}))


def _words(run: str, stage: str | list[str] = "", **options: object) -> list[str]:
    """The command line made anew: a word of it like the run's name may be a stage, or the value of an option."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words.append(f"--{name}={value}")
    return [*words, "--", run, *(stage if isinstance(stage, list) else [stage] * bool(stage))]
