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
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# a shell that starts a job in the background has it ignore SIGINT, and so would every process a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)
# more threads only spin where other work has the cores; before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The same examples every time, and as long for each as a busy machine needs; --hypothesis-profile=fuzz looks for new ones.
_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", derandomize=True, **_PATIENT)
settings.register_profile("fuzz", max_examples=2000, **_PATIENT)
settings.load_profile("suite")
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
