"""A stage on a file system that fills up: a clear error, and nothing half-written."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recipes.stages.toy import toy_corpus
from tests.conftest import ROOT


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_behind(small_disk: Path):
    config = OmegaConf.structured(toy_corpus.Config)
    config.merge_with(
        {"uses": "toy_corpus", "name": "corpus", "output_dir": str(small_disk), "kind": "base", "num_rows": 20000}
    )
    (small_disk / "config.yaml").write_text(OmegaConf.to_yaml(config))
    command = [sys.executable, "-m", "recipes.run_stage", str(small_disk / "config.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    error = (small_disk / "error.json").read_text()
    assert "No space left" in error and "free some space" in error
    assert not list(small_disk.glob("output*")) and not list(small_disk.glob(".*.tmp"))
    assert not (small_disk / "_DONE").exists()
