"""Build, tag, push or convert an image of containers/images.yaml's `builds`: `python containers/build.py cpu`.

    dry_run=true            print the commands and run none
    push=<registry/prefix>  push it as <registry/prefix>/<name>:<commit>
    sqsh=<folder>           write <folder>/<name>-<commit>.sqsh for enroot and pyxis
    engine=docker|podman    allow_dirty=true: build the working tree as it is, tagged -dirty
    torch_index=<url>       of the cpu image: a package index with torch's CPU wheels; else it gets 3 GB of CUDA too

What is built is the committed tree. Prints the lines for images.yaml or the cluster's file.
Exit codes: 0 done, 1 a command failed, 2 refused before anything was started.
"""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from launchers.planning import images

ENGINES = {"docker": "dockerd", "podman": "podman"}  # and how enroot calls their storage
LOCAL = "megatron-recipes"
CONTEXT = "context"  # in what dry_run prints


@dataclass(frozen=True, kw_only=True)
class Request:
    name: str
    dry_run: bool = False
    allow_dirty: bool = False
    push: str | None = None
    sqsh: Path | None = None
    engine: str = "docker"
    torch_index: str | None = None


def read_request(words: list[str]) -> Request:
    """Raises ValueError for what is no build, no key, or no value of its key."""
    builds = images.read()["builds"]
    if not words or words[0] not in builds:
        got = words[0] if words else "nothing"
        raise ValueError(f"the first word says which image, got {got!r}; there are: {', '.join(builds)}")
    fits = {
        "dry_run": "true|false",
        "allow_dirty": "true|false",
        "engine": "|".join(ENGINES),
        "push": r"[a-z0-9][a-z0-9._:/-]*[a-z0-9]",
        "sqsh": ".+",
        "torch_index": r"(https?|file)://\S+",
    }
    given: dict[str, Any] = {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key not in fits or not re.fullmatch(fits[key], value):
            raise ValueError(
                f"{word!r}: it may be dry_run=true, allow_dirty=true, push=<registry/prefix>, sqsh=<folder>, "
                f"engine={' or '.join(ENGINES)}, torch_index=<url>"
            )
        given[key] = value == "true" if key in ("dry_run", "allow_dirty") else value
    if "sqsh" in given:
        given["sqsh"] = Path(given["sqsh"]).absolute()
    return Request(name=words[0], **given)


def version_of(root: Path, allow_dirty: bool) -> str:
    """The tag: the commit, with -dirty when the working tree is what is built.

    Raises:
        ValueError: there are changes that are not committed, or there is no commit.
    """
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD").decode().strip()
        changes = _git(root, "status", "--porcelain").decode().splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"{root} is not a git checkout with a commit, and images are tagged by it: {error}"
        ) from error
    if not changes:
        return commit
    if not allow_dirty:
        raise ValueError(
            f"{len(changes)} changes are not committed ({changes[0].strip()}{', ...' if len(changes) > 1 else ''}), and the "
            "tag would not say what is inside: commit them, or allow_dirty=true"
        )
    return f"{commit}-dirty"


def commands(request: Request, version: str, context: str) -> list[list[str]]:
    """What is run, in order."""
    build = images.read()["builds"][request.name]
    base = images.read()["published"][build["from"]]
    local = f"{LOCAL}/{request.name}:{version}"
    arguments = {"BASE": "@".join(filter(None, [base["reference"], base["digest"]])), **build.get("args", {})}
    arguments |= {"TORCH_INDEX": request.torch_index} if request.torch_index else {}
    file = f"{context}/containers/{build.get('dockerfile', request.name)}.Dockerfile"
    words = [request.engine, "build", "--file", file, "--tag", local]
    words += [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    words += ["--label", f"org.opencontainers.image.revision={version}"]
    listed = [[*words, context]]
    if request.push:
        remote = f"{request.push}/{request.name}:{version}"
        listed += [[request.engine, "tag", local, remote], [request.engine, "push", remote]]
    if request.sqsh:
        path = sqsh_path(request, version)
        # whole or absent: a job may start from it while it is written
        listed += [["enroot", "import", "--output", f"{path}.partial", f"{ENGINES[request.engine]}://{local}"]]
        listed += [["mv", f"{path}.partial", str(path)]]
    return listed


def sqsh_path(request: Request, version: str) -> Path:
    assert request.sqsh is not None, "asked for"
    return request.sqsh / f"{request.name}-{version}.sqsh"


def check(request: Request, listed: list[list[str]]) -> None:
    """Raises ValueError when a program or a folder is not there."""
    for program in dict.fromkeys(words[0] for words in listed):
        if shutil.which(program) is None:
            raise ValueError(
                f"there is no {program} on PATH; dry_run=true prints the commands for a machine that has it"
            )
    if request.sqsh and not request.sqsh.is_dir():
        raise ValueError(f"sqsh={request.sqsh} is not a folder")


@contextmanager
def context_of(root: Path, version: str) -> Iterator[Path]:
    """A folder with what is built: the commit's files, or those of the working tree that git has or would take."""
    with tempfile.TemporaryDirectory(prefix=f"{LOCAL}-") as name:
        folder = Path(name) / "context"
        folder.mkdir()
        if version.endswith("-dirty"):
            for file in _git(root, "ls-files", "-z", "-co", "--exclude-standard").decode().split("\0"):
                if file and (root / file).is_file():
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(root / file, folder / file)
        else:
            with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", "HEAD"))) as archive:
                archive.extractall(folder, filter="data")
        yield folder


def advice(request: Request, version: str, digest: str | None) -> str:
    """The lines that make stages use what was built."""
    reference = f"{request.push or LOCAL}/{request.name}:{version}"
    names = images.read()["builds"][request.name]["stands_for"]
    if not names:
        return f"image: {reference}" + (f"@{digest}" if digest else "")
    lines = [
        f"For containers/images.yaml, of {' and '.join(names)}:",
        f"    reference: {reference}",
        f"    digest: {digest or 'null'}",
    ]
    pinned = f"{reference}@{digest}" if digest else reference
    lines += [
        "or for a file of conf/cluster:",
        f"    images: {{ {', '.join(f'{name}: {json.dumps(pinned)}' for name in names)} }}",
    ]
    if request.sqsh:
        path = json.dumps(str(sqsh_path(request, version)))
        lines += ["with enroot or pyxis:", f"    images: {{ {', '.join(f'{name}: {path}' for name in names)} }}"]
    return "\n".join(lines)


def show(request: Request, version: str) -> str:
    """The commands as a person can type them, in the repository's folder."""
    source = "git ls-files -co --exclude-standard -z" if version.endswith("-dirty") else "git archive HEAD"
    unpack = "xargs -0 cp --parents -t context" if version.endswith("-dirty") else "tar -x -C context"
    lines = [f"mkdir {CONTEXT} && {source} | {unpack}", *map(shlex.join, commands(request, version, CONTEXT))]
    return "\n".join(lines)


def pushed_digest(request: Request, version: str) -> str | None:
    """What the registry calls what was pushed; None when nothing was."""
    if not request.push:
        return None
    remote = f"{request.push}/{request.name}"
    argv = [request.engine, "image", "inspect", "--format", "{{json .RepoDigests}}", f"{remote}:{version}"]
    listed = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout) or []
    return next((each.partition("@")[2] for each in listed if each.partition("@")[0] == remote), None)


def _git(root: Path, *words: str) -> bytes:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=True).stdout


def main(words: list[str]) -> int:
    try:
        request = read_request(words)
        version = version_of(ROOT, request.allow_dirty)
        if request.dry_run:
            print(show(request, version))
            print(advice(request, version, None))
            return 0
        check(request, commands(request, version, CONTEXT))
        with context_of(ROOT, version) as context:
            for argv in commands(request, version, str(context)):
                print(f"$ {shlex.join(argv)}", flush=True)
                subprocess.run(argv, check=True)
        print(advice(request, version, pushed_digest(request, version)))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"failed: {shlex.join(map(os.fspath, error.cmd))} ended with {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
