"""Shared by every test: the repository root on sys.path, and the real data where it is present."""

import signal
import sys
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
