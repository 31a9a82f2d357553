"""containers/build.py: the commands it says and runs, what it refuses, and one image built for real where Docker runs."""

import importlib.util
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from launchers.planning import images
from tests.conftest import ROOT
from tests.containers.docker_daemon import docker_daemon

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program, over a checkout of its own with one commit."""
    spec = importlib.util.spec_from_file_location("container_build", ROOT / "containers" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "container_build", module)
    spec.loader.exec_module(module)
    root = tmp_path / "checkout"
    (root / "containers").mkdir(parents=True)
    for name in ("cpu.Dockerfile", "add_missing.py"):
        (root / "containers" / name).write_text((ROOT / "containers" / name).read_text())
    (root / "requirements.lock").write_text("numpy==2.4.6\n")
    (root / "code.py").write_text("committed\n")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"],
    ):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    monkeypatch.setattr(module, "ROOT", root)
    return module


def test_dry_run_says_every_command_and_runs_none(
    build: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(str(build.shutil.which('git'))).parent}")
    known = {key: dict(value) for key, value in images.read().items()}
    known["published"]["nemo"] = {"reference": "nvcr.io/nvidia/nemo:1", "digest": DIGEST}
    monkeypatch.setattr(build.images, "read", lambda: known)
    words = ["train", "dry_run=true", "push=reg.example.org/llm", "sqsh=/shared/images", "engine=podman"]
    assert build.main(words) == 0
    said = capsys.readouterr().out
    version = build.version_of(build.ROOT, False)
    skills = known["builds"]["train"]["args"]["NEMO_SKILLS"]
    assert said.splitlines()[:6] == [
        "mkdir context && git archive HEAD | tar -x -C context",
        f"podman build --file context/containers/train.Dockerfile --tag megatron-recipes/train:{version} --build-arg "
        f"BASE=nvcr.io/nvidia/nemo:1@{DIGEST} --build-arg NEMO_SKILLS={skills} --label "
        f"org.opencontainers.image.revision={version} context",
        f"podman tag megatron-recipes/train:{version} reg.example.org/llm/train:{version}",
        f"podman push reg.example.org/llm/train:{version}",
        f"enroot import --output /shared/images/train-{version}.sqsh.partial podman://megatron-recipes/train:{version}",
        f"mv /shared/images/train-{version}.sqsh.partial /shared/images/train-{version}.sqsh",
    ]
    assert f'images: {{ base: "reg.example.org/llm/train:{version}", nemo: ' in said
    assert f'images: {{ base: "/shared/images/train-{version}.sqsh"' in said


@pytest.mark.parametrize("name", images.read()["builds"])
def test_every_build_has_its_base_and_its_arguments(build: ModuleType, name: str) -> None:
    (argv,) = build.commands(build.read_request([name]), "1f2e", "context")
    entry = images.read()["builds"][name]
    assert f"BASE={images.read()['published'][entry['from']]['reference']}" in argv
    assert (ROOT / argv[argv.index("--file") + 1].removeprefix("context/")).is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "got 'nothing'; there are: train, serve"),
        (["gpu"], "got 'gpu'; there are: train"),
        (["cpu", "dry_run=yes"], "'dry_run=yes': it may be dry_run=true"),
        (["cpu", "tag=x"], "'tag=x': it may be"),
        (["cpu", "push=--insecure"], "push=<registry/prefix>"),
        (["cpu", "engine=buildah"], "engine=docker or podman"),
        (["cpu", "sqsh=/no/such/folder"], "sqsh=/no/such/folder is not a folder"),
    ],
)
def test_refusals(
    build: ModuleType,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda program: program)
    assert build.main(words) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1


def test_a_tree_that_is_not_committed_is_refused(build: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    (build.ROOT / "code.py").write_text("changed\n")
    assert build.main(["cpu", "dry_run=true"]) == 2
    assert "1 changes are not committed (M code.py)" in capsys.readouterr().err
    assert build.main(["cpu", "dry_run=true", "allow_dirty=true"]) == 0
    assert "-dirty " in capsys.readouterr().out
    with build.context_of(build.ROOT, build.version_of(build.ROOT, True)) as context:
        assert (context / "code.py").read_text() == "changed\n" and not (context / ".git").exists()
    with build.context_of(build.ROOT, "1f2e") as context:
        assert (context / "code.py").read_text() == "committed\n"
    assert not context.exists()


def test_a_missing_program_is_refused_before_anything_runs(
    build: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    which = build.shutil.which
    monkeypatch.setattr(build.shutil, "which", lambda program: None if program == "docker" else which(program))
    assert build.main(["cpu"]) == 2
    assert "there is no docker on PATH" in capsys.readouterr().err


def test_the_pushed_digest_is_the_registrys(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = f'["other/cpu@sha256:{"0" * 64}", "reg/llm/cpu@{DIGEST}"]\n'
    answer = subprocess.CompletedProcess([], 0, listed)
    monkeypatch.setattr(build.subprocess, "run", lambda *args, **more: answer)
    assert build.pushed_digest(build.read_request(["cpu", "push=reg/llm"]), "1f2e") == DIGEST
    assert build.pushed_digest(build.read_request(["cpu"]), "1f2e") is None
    assert f"reg/llm/cpu:1f2e@{DIGEST}" in build.advice(build.read_request(["cpu", "push=reg/llm"]), "1f2e", DIGEST)


def test_the_cpu_image_is_built_with_docker(
    build: ModuleType, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a base whose package managers only say what they were asked: no registry is reached."""
    with docker_daemon() as env:
        for key, value in (env | {"DOCKER_BUILDKIT": "0"}).items():
            monkeypatch.setenv(key, value)
        subprocess.run(["docker", "import", "-", "local/python:1"], input=fake_python_image(), check=True, timeout=60)
        known: dict[str, Any] = {
            **images.read(),
            "published": {"python": {"reference": "local/python:1", "digest": None}},
        }
        monkeypatch.setattr(build.images, "read", lambda: known)
        (build.ROOT / "not-committed.py").write_text("x")
        assert build.main(["cpu"]) == 2
        (build.ROOT / "not-committed.py").unlink()
        assert build.main(["cpu"]) == 0, capfd.readouterr().err
        said = capfd.readouterr().out
        version = build.version_of(build.ROOT, False)
        assert "asked: apt-get install --yes --no-install-recommends bubblewrap git" in said
        assert "asked: python3 -m pip install --no-cache-dir --requirement requirements.lock" in said
        assert f'images: {{ base: "megatron-recipes/cpu:{version}", nemo: ' in said
        layout = [
            "docker",
            "image",
            "inspect",
            "--format",
            "{{.Config.User}} {{.Config.WorkingDir}} {{json .Config.Labels}}",
        ]
        told = subprocess.run(
            [*layout, f"megatron-recipes/cpu:{version}"], capture_output=True, text=True, check=True
        ).stdout
        assert told.split(" ", 2) == [
            "1000:1000", "/opt/megatron-recipes", f'{{"org.opencontainers.image.revision":"{version}"}}\n',
        ]  # fmt: skip
        inside = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            f"megatron-recipes/cpu:{version}",
            "bash",
            "-c",
            "echo $UID *",
        ]
        shown = subprocess.run(inside, capture_output=True, text=True, check=True).stdout
        assert shown.split() == ["1000", "code.py", "containers", "requirements.lock"]
        # a step that fails stops the build, and no image is tagged
        (build.ROOT / "requirements.lock").write_text("unobtainable==1\n")
        subprocess.run(["docker", "image", "rm", "--force", f"megatron-recipes/cpu:{version}"], check=True)
        assert build.main(["cpu", "allow_dirty=true"]) == 1
        assert "ended with" in capfd.readouterr().err
        gone = ["docker", "image", "inspect", f"megatron-recipes/cpu:{version}-dirty"]
        assert subprocess.run(gone, capture_output=True).returncode != 0


def fake_python_image() -> bytes:
    """bash and rm of this machine with their libraries, and programs that print what they were asked."""
    buffer, script = io.BytesIO(), '#!/bin/bash\necho "asked: ${0##*/} $*"\n'
    lock = "while read -r line; do [[ $line != unobtainable* ]]; done < requirements.lock\n"
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        wanted = {"bin/bash": "/bin/bash", "bin/rm": "/bin/rm"}
        for program in list(wanted.values()):
            listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split()
            wanted |= {word.lstrip("/"): word for word in listed if word.startswith("/")}
        for name, path in wanted.items():
            tar.add(os.path.realpath(path), name)
        for name, text in {
            "apt-get": script,
            "useradd": script,
            "python3": script.replace("\n", "\nset -e\n", 1) + lock,
        }.items():
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_torch_comes_from_the_index_that_is_named(build: ModuleType) -> None:
    plain, named = (build.read_request(["cpu", *words]) for words in ([], ["torch_index=https://index.example/cpu"]))
    assert not any("TORCH_INDEX" in word for word in build.commands(plain, "1", "context")[0])
    assert "TORCH_INDEX=https://index.example/cpu" in build.commands(named, "1", "context")[0]
    with pytest.raises(ValueError, match="torch_index=<url>"):
        build.read_request(["cpu", "torch_index=nothing"])
