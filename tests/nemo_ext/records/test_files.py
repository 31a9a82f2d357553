import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_ext.records import files
from tests.conftest import ROOT


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_text_atomic(path, "old")
    with pytest.raises(RuntimeError), files.atomic_open(path) as handle:  # noqa: PT012
        handle.write(b"new")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x"]


def test_nothing_is_there_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x"
    with files.atomic_open(path) as handle:
        handle.write(b"1")
        handle.flush()
        assert not path.exists()
    assert path.read_bytes() == b"1"


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    code = f"""
import os, pathlib
from nemo_ext.records.files import atomic_open
with atomic_open(pathlib.Path({str(path)!r})) as handle:
    handle.write(b"new" * 100000)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and path.read_text() == "old"


def test_colleagues_can_read_it(tmp_path: Path) -> None:
    files.write_text_atomic(tmp_path / "x", "")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


def test_json_is_readable_and_whole(tmp_path: Path) -> None:
    files.write_json_atomic(tmp_path / "x.json", {"b": 1, "a": "é"})
    text = (tmp_path / "x.json").read_text()
    assert text == '{\n  "b": 1,\n  "a": "é"\n}\n' and json.loads(text)
    with pytest.raises(TypeError):
        files.write_json_atomic(tmp_path / "x.json", {"a": Path()})
    assert (tmp_path / "x.json").read_text() == text


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "x").startswith("ba7816bf8f01cfea")
    assert files.sha256_json({"a": 1, "b": [1]}) == files.sha256_json({"b": [1], "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": "1"})
