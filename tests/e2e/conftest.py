"""Runs of the real launcher in a folder of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.small_pipeline import SMALL

ROOT = Path(__file__).resolve().parent.parent.parent
Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Start `launchers/run.py` with RUNS_DIR under tmp_path; what a test leaves running is ended after it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "launchers/run.py", *arguments],
            cwd=ROOT, env=os.environ | {"RUNS_DIR": str(tmp_path)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(120)


@pytest.fixture
def finish(launch: Launch) -> Callable[..., str]:
    """Run to the end; the output. Fails with it when the exit code is not the one expected."""

    def run(*arguments: str, code: int = 0, timeout: float = 300) -> str:
        process = launch(*arguments)
        output, _ = process.communicate(timeout=timeout)
        assert process.returncode == code, output
        return output

    return run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the small pipeline, from the first stage to the report, on this machine."""
    runs = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [sys.executable, "launchers/run.py", *SMALL],
        cwd=ROOT, env=os.environ | {"RUNS_DIR": str(runs)}, text=True, capture_output=True, timeout=560, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return runs / "openmathinstruct2_tiny"
