"""Inside an image, what it carries stays, and only what it lacks is installed."""

import importlib.util
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

SKILLS = "nemo_skills @ git+https://example.org/Skills.git@" + "0a" * 20


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("add_missing", ROOT / "containers" / "add_missing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text("# packages\nnumpy==0.0.1 # older than what is here\n\nno-such-package==1.2.3\n")
    return path


def test_only_what_is_absent_is_installed_without_dependencies(
    program: ModuleType, lock: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[list[str], dict[str, str]]] = []

    def run(argv: list[str], env: dict[str, str], check: bool) -> "subprocess.CompletedProcess[bytes]":
        ran.append((argv, env))
        return subprocess.CompletedProcess(argv, 7)

    monkeypatch.setattr(program.subprocess, "run", run)
    monkeypatch.setenv("PIP_CONSTRAINT", "/etc/pip/constraint.txt")
    assert program.main(["add_missing.py", str(lock), SKILLS]) == 7, "the installer's own exit code"
    ((argv, env),) = ran
    assert argv[:4] == [sys.executable, "-m", "pip", "install"] and "--no-deps" in argv
    assert argv[-2:] == ["no-such-package==1.2.3", SKILLS] and "PIP_CONSTRAINT" not in env
    assert f"carried: numpy {version('numpy')} (numpy==0.0.1)" in capsys.readouterr().out


def test_nothing_is_run_where_nothing_is_missing(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.subprocess, "run", lambda *args, **more: pytest.fail("an installer was run"))
    assert program.main(["add_missing.py", str(ROOT / "requirements.lock")]) == 0


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "-r other.txt", "x @ git+https://example.org/x.git@main"])
def test_a_line_that_pins_nothing_is_refused(
    program: ModuleType, lock: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["add_missing.py", str(lock), line]) == 1
    assert "pins no version" in capsys.readouterr().err


def test_uv_is_used_where_there_is_no_pip(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(program.shutil, "which", lambda name: "/bin/uv")
    assert program.installer()[:3] == ["/bin/uv", "pip", "install"]
    monkeypatch.setattr(program.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="no pip, and there is no uv"):
        program.installer()


def test_it_needs_the_standard_library_alone() -> None:
    """An image may lack everything else when it runs."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "containers" / "add_missing.py")], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("usage: ")
