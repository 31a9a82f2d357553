"""The committed tree, on the machine that jobs are submitted from: one folder per commit, whole or absent."""

import json
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers.submit_host.link import Link, last_line

OLDEST_PYTHON = (3, 11)
NEEDED = ("hydra", "omegaconf", "psutil", "rich")
"""Modules that the launchers import."""
FILES_SHOWN = 5
TREE_S = 600.0
# any Python 3 can say that it is too old
PROBE = """
import importlib.util, json, os, shutil, sys
folder, commit = sys.argv[1:3]
said = {"version": list(sys.version_info[:3]), "rsync": bool(shutil.which("rsync"))}
said["missing"] = [name for name in sys.argv[3:] if importlib.util.find_spec(name) is None]
try:
    os.chdir(os.path.expanduser("~"))
    os.makedirs(folder, exist_ok=True)
    said["folder"] = os.path.abspath(folder)
    said["has_tree"] = os.path.isdir(os.path.join(folder, commit))
except OSError as error:
    said["error"] = str(error)
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Sent:
    folder: str
    """cluster.ssh.path, absolute, there."""
    commit: str

    @property
    def tree(self) -> str:
        return f"{self.folder}/{self.commit}"


def committed(root: Path, allow_dirty: bool) -> tuple[str, list[str]]:
    """The last commit, 12 digits, and the files in which the tree differs from it.

    Raises:
        ValueError: there is none, or the tree differs and `allow_dirty` does not allow that.
    """
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        changed = [line[3:] for line in _git(root, "status", "--porcelain").splitlines()]
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"cluster.ssh sends the committed tree, and {root} is no git checkout with one: {error}"
        ) from error
    if changed and not allow_dirty:
        more = f" and {len(changed) - FILES_SHOWN} more" if len(changed) > FILES_SHOWN else ""
        raise ValueError(
            f"cluster.ssh sends the committed tree, and not committed are {', '.join(changed[:FILES_SHOWN])}{more}: "
            "commit, or cluster.ssh.allow_dirty=true, which leaves the changes behind"
        )
    return commit, changed


def send(link: Link, root: Path, commit: str) -> Sent:
    """Put the commit's tree on the host, unless it is there.

    Raises:
        ValueError: the host cannot be reached, its Python does not do, or its disk is full.
    """
    there = probe(link, commit)
    sent = Sent(there["folder"], commit)
    if not there["has_tree"]:
        with tempfile.TemporaryDirectory() as folder:
            archive = subprocess.Popen(["git", "-C", str(root), "archive", commit], stdout=subprocess.PIPE)
            subprocess.run(["tar", "--extract", "--directory", folder], stdin=archive.stdout, check=True)
            if archive.wait() != 0:
                raise ValueError(f"cluster.ssh: git archive of {commit} ended with code {archive.returncode}")
            _copy(link, f"{folder}/", f"{sent.tree}.part")
        moved = link.ask(["mv", "-T", f"{sent.tree}.part", sent.tree])
        if moved.returncode != 0:
            raise ValueError(f"cluster.ssh: {link.host}: {last_line(moved.stderr)}; launch again")
    return sent


def probe(link: Link, commit: str) -> dict[str, Any]:
    """What the host says of itself, its folder made.

    Raises:
        ValueError: it has no Python that does, no rsync, or the folder cannot be made.
    """
    host = link.host
    done = link.ask([host.python, "-c", PROBE, host.path, commit, *NEEDED])
    try:
        said: dict[str, Any] = json.loads(last_line(done.stdout))
    except ValueError:
        why = last_line(done.stderr) or last_line(done.stdout) or f"exit code {done.returncode}"
        raise ValueError(
            f"cluster.ssh.python={host.python!r} does not run on {host} ({why}); set it to the Python there that has "
            "this project's requirements"
        ) from None
    version = ".".join(map(str, said["version"]))
    if tuple(said["version"]) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise ValueError(f"cluster.ssh.python={host.python!r} on {host} is Python {version}, and {oldest} is needed")
    if said["missing"]:
        missing = ", ".join(said["missing"])
        raise ValueError(
            f"cluster.ssh.python={host.python!r} on {host} (Python {version}) lacks {missing}; install "
            "requirements.lock there, or set it to the Python that has it"
        )
    if "error" in said:
        raise ValueError(f"cluster.ssh.path={host.path} on {host}: {said['error']}")
    if not said["rsync"]:
        raise ValueError(f"cluster.ssh: there is no rsync on {host}; its staff can install it")
    return said


def _copy(link: Link, source: str, target: str) -> None:
    """rsync's contents of a folder here to one there."""
    over = shlex.join(link.ssh)
    argv = ["rsync", "--archive", "--compress", "--delete", "--protect-args", f"--rsh={over}"]
    done = link.run([*argv, source, f"{link.host.host}:{target}"], TREE_S)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("rsync error")]
        full = next((line for line in lines if "No space left" in line or "quota" in line.lower()), "")
        why = f"{full}; free some, or set cluster.ssh.path" if full else last_line("\n".join(lines))
        raise ValueError(f"cluster.ssh: {target} on {link.host} cannot be written: {why}")


def _git(root: Path, *words: str) -> str:
    argv = ["git", "-C", str(root), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
