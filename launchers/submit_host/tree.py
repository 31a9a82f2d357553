"""The committed tree, on the machine that jobs are submitted from: one folder per commit, whole or absent."""

import json
import secrets
import shlex
import subprocess
import tempfile
from contextlib import suppress
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
import importlib.util, json, os, re, shutil, sys, time
folder, commit = sys.argv[1:3]
said = {"version": list(sys.version_info[:3]), "rsync": bool(shutil.which("rsync"))}
said["missing"] = [name for name in sys.argv[3:] if importlib.util.find_spec(name) is None]
try:
    os.chdir(os.path.expanduser("~"))
    folder = os.path.expanduser(folder)
    os.makedirs(folder, exist_ok=True)
    said["folder"] = os.path.abspath(folder)
    said["has_tree"] = os.path.isdir(os.path.join(folder, commit))
    for entry in os.scandir(folder):
        ours = re.fullmatch("[0-9a-f]+[.][0-9a-f]{8}[.]part", entry.name)
        try:
            if ours and time.time() - entry.stat().st_mtime > 86400:
                shutil.rmtree(entry.path, ignore_errors=True)
        except FileNotFoundError:  # renamed by the launch that sent it
            continue
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
        ValueError: there is no commit, or the tree differs and `allow_dirty` does not allow that.
    """
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        changed = [line[3:] for line in _git(root, "status", "--porcelain").splitlines()]
    except FileNotFoundError:
        raise ValueError("cluster.ssh sends the committed tree, and there is no git on PATH here") from None
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error)
        raise ValueError(
            f"cluster.ssh sends the committed tree, and {root} is not a git checkout with one: {said.splitlines()[0]}"
        ) from error
    if changed and not allow_dirty:
        raise ValueError(
            f"cluster.ssh sends the committed tree, and not committed are {some_of(changed)}: "
            "commit, or cluster.ssh.allow_dirty=true, which leaves the changes behind"
        )
    return commit, changed


def some_of(files: list[str]) -> str:
    more = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
    return f"{', '.join(files[:FILES_SHOWN])}{more}"


def send(link: Link, root: Path, commit: str) -> Sent:
    """Put the commit's tree on the host, unless it is there.

    Raises:
        ValueError: the host cannot be reached, its Python does not do, or a disk is full.
    """
    there = probe(link, commit)
    sent = Sent(there["folder"], commit)
    if not there["has_tree"]:
        # a name of its own: two launches may send one commit at once
        part = f"{sent.tree}.{secrets.token_hex(4)}.part"
        try:
            with tempfile.TemporaryDirectory() as folder:
                _copy(link, f"{_extract(root, commit, Path(folder))}/", part)
            _move(link, part, sent.tree)
        except BaseException:
            with suppress(ValueError):  # a connection that is gone: the next launch removes what is a day old
                link.ask(["rm", "-rf", "--", part])
            raise
    return sent


def _extract(root: Path, commit: str, folder: Path) -> Path:
    """The commit's files, in a folder with the modes that a checkout has."""
    tree = folder / "tree"  # not `folder`, which nobody else may read, as a copy of it would be
    tree.mkdir()
    archive = subprocess.Popen(["git", "-C", str(root), "archive", commit], stdout=subprocess.PIPE)
    unpack = ["tar", "--extract", "--directory", str(tree)]
    done = subprocess.run(unpack, stdin=archive.stdout, capture_output=True, text=True, check=False)
    assert archive.stdout is not None, "asked for"
    archive.stdout.close()
    if archive.wait() != 0 or done.returncode != 0:
        why = last_line(done.stderr) or f"git archive ended with code {archive.returncode}"
        raise ValueError(f"cluster.ssh: {commit} cannot be unpacked in {folder}: {why}; set TMPDIR if it is full")
    return tree


def _move(link: Link, part: str, tree: str) -> None:
    moved = link.ask(["mv", "-T", part, tree])
    if moved.returncode == 0:
        return
    if link.ask(["test", "-d", tree]).returncode != 0:
        raise ValueError(f"cluster.ssh: {link.host}: {last_line(moved.stderr)}; launch again")
    link.ask(["rm", "-rf", "--", part])  # another launch has sent the same commit meanwhile


def probe(link: Link, commit: str) -> dict[str, Any]:
    """What the host says of itself, its folder made.

    Raises:
        ValueError: it has no Python that does, no rsync, or the folder cannot be made.
    """
    host = link.host
    # on one line: a login shell that is csh takes no other word
    done = link.ask([host.interpreter, "-c", f"exec({PROBE!r})", host.path, commit, *NEEDED])
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
    host = f"[{link.host.host}]" if ":" in link.host.host else link.host.host
    done = link.run([*argv, source, f"{host}:{target}"], TREE_S)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("rsync error")]
        full = next((line for line in lines if "No space left" in line or "quota" in line.lower()), "")
        why = f"{full}; free some, or set cluster.ssh.path" if full else last_line("\n".join(lines))
        raise ValueError(f"cluster.ssh: {target} on {link.host} cannot be written: {why}")


def _git(root: Path, *words: str) -> str:
    argv = ["git", "-C", str(root), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
