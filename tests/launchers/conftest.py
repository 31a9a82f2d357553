"""What tests of launchers share: a run folder, stand-ins of Slurm's clients, what a test has left behind."""

from pathlib import Path

import psutil
import pytest

from tests.launchers.followed_run import Clients, Run
from tests.launchers.process_stages import Left


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    return Clients.on_path(tmp_path, monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "sft")


@pytest.fixture
def left_behind() -> Left:
    """Asks for the processes that were started here since the test began, and still run; others are not its business,
    such as multiprocessing's fork server, which an earlier test may have needed and which stays as long as Python."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [child for child in psutil.Process().children(recursive=True) if child not in before]
