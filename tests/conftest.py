"""Shared by every test: the repository root on sys.path, the real data where it is present, a Slurm where one can be started."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# a shell that starts a job in the background has it ignore SIGINT, and so would every process a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data sets are not here: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A real Slurm of two nodes, and a folder that both see; Slurm's clients find the cluster by SLURM_CONF."""
    lab = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="slurm-test-"))
    scripts, before = ROOT / "tests" / "slurm", os.environ.get("SLURM_CONF")
    started = subprocess.run([scripts / "start.sh", lab], capture_output=True, text=True, timeout=400, check=False)
    os.environ["SLURM_CONF"] = str(lab / "slurm.conf")
    try:
        if started.returncode != 0:
            pytest.skip(f"no Slurm here: {' '.join(started.stderr.split()[-40:])}")
        yield lab
    finally:
        subprocess.run([scripts / "stop.sh", lab], timeout=200, check=False)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(lab)
