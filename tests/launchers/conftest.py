"""What tests of launchers share: a run folder, stand-ins of Slurm's clients, launchers/run.py without its process, what a
test has left behind."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launchers import run as run_py
from tests.conftest import ROOT
from tests.launchers.followed_run import Clients, Run
from tests.launchers.process_stages import Left


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    return Clients.on_path(tmp_path, monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "sft")


Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def launch_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Launch]:
    """`python launchers/run.py <words>` as a call, with its runs in <tmp_path>/runs: starting Python and Hydra takes longer
    than most of what is asked."""
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which main() sets, and would leave set
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def launch(*words: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(sys, "argv", [str(ROOT / "launchers" / "run.py"), *words])
        code = run_py.main()
        return subprocess.CompletedProcess(list(words), code, *capsys.readouterr())

    yield launch
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def left_behind() -> Left:
    """Asks for the processes that were started here since the test began, and still run; others are not its business,
    such as multiprocessing's fork server, which an earlier test may have needed and which stays as long as Python."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [child for child in psutil.Process().children(recursive=True) if child not in before]
