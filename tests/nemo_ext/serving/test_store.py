"""The completion store: nothing lost, nothing doubled, whatever the file went through."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemo_ext.serving.client.requests import Completion
from nemo_ext.serving.completions.completion_store import CompletionStore
from tests.nemo_ext.serving.conftest import ROOT, wait_until


def _completion(key: str, text: str = 'one\ntwo \u2028 "three"') -> Completion:
    return Completion(key, text, "stop", 5, 3, 0.25, None, 1)


def _fill(path: Path, count: int) -> None:
    with CompletionStore(path) as store:
        for i in range(count):
            store.append([_completion(f"k{i}", f"text {i}")])


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.jsonl"
    with CompletionStore(path) as store:
        assert "a" not in store
        store.append([_completion("a")])
        store.append([_completion("b", "")])
        assert store.get("a") == _completion("a")
    with CompletionStore(path) as store:
        assert len(store) == 2
        assert store.get("a") == _completion("a")
        store.append([_completion("a", "again")])
        assert store.get("a").text == "again"
        with pytest.raises(ValueError, match="was changed meanwhile"):
            store.get("c")
    with CompletionStore(path) as store:
        assert (len(store), store.get("a").text) == (2, "again")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2000))
def test_any_cut_loses_only_the_rows_it_touched(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "store.jsonl"
    path.unlink(missing_ok=True)
    _fill(path, 10)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    with CompletionStore(path) as store:
        assert len(store) == complete
        assert store.num_corrupt == 0
        assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:complete])
        store.append([_completion("new")])
        assert all(store.get(f"k{i}").text == f"text {i}" for i in range(complete))
    with CompletionStore(path) as store:
        assert store.get("new") == _completion("new")


@pytest.mark.parametrize("garbage", [b"\0\0\0\0\n", b'{"key": 5}\n', b"[1, 2]\n", b'{"key": "x", "te\n', b"\n"])
def test_corrupt_lines_in_the_middle_are_counted_and_skipped(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "store.jsonl"
    _fill(path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], garbage, *lines[2:]]))
    with CompletionStore(path) as store:
        assert store.num_corrupt == 1
        assert [store.get(f"k{i}").text for i in range(4)] == [f"text {i}" for i in range(4)]
    assert garbage in path.read_bytes()


@settings(deadline=None)
@given(st.text(), st.text())
def test_an_edited_text_is_asked_for_again(tmp_path_factory: pytest.TempPathFactory, text: str, other: str) -> None:
    path = tmp_path_factory.mktemp("edited") / "store.jsonl"
    with CompletionStore(path) as store:
        store.append([_completion("a", text), _completion("b", "kept")])
    first, second = path.read_bytes().splitlines(keepends=True)
    rows = [json.loads(first) | {"text": other}, json.loads(first) | {"key": "c"}]
    edited = [json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in rows]
    path.write_bytes(b"".join([*edited, second]))
    with CompletionStore(path) as store:
        assert ("a" in store) == (text == other) and "c" not in store and store.get("b").text == "kept"


def test_two_writers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    with CompletionStore(path), pytest.raises(ValueError, match="another process is writing"):
        CompletionStore(path)
    CompletionStore(path).close()


def test_a_full_disk_says_so_and_leaves_the_store_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write

    def half_then_full(descriptor: int, data: bytes) -> int:
        return real_write(descriptor, data[: len(data) // 2])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "store.jsonl"
    with CompletionStore(path) as store:
        store.append([_completion("a")])
        for write in (half_then_full, full):
            with monkeypatch.context() as patch:
                patch.setattr("nemo_ext.serving.completions.completion_store.os.write", write)
                with pytest.raises(OSError, match=r"No space left.*free some space.*1 completions") as raised:
                    store.append([_completion("b")])
            assert raised.value.errno == errno.ENOSPC
            assert raised.value.filename == str(path)
            assert "b" not in store
        store.append([_completion("c")])
        assert store.get("c") == _completion("c")
    with CompletionStore(path) as store:
        assert len(store) == 2
        assert store.num_corrupt == 0


def test_fsync_by_rows_by_time_and_at_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    store = CompletionStore(tmp_path / "store.jsonl", fsync_rows=3, fsync_s=1000)
    monkeypatch.setattr("nemo_ext.serving.completions.completion_store.os.fsync", calls.append)
    for i in range(7):
        store.append([_completion(f"k{i}")])
    assert len(calls) == 2
    store._last_sync -= 2000
    store.append([_completion("late")])
    assert len(calls) == 3
    store.close()
    assert len(calls) == 4


WRITER = """
import sys
from pathlib import Path
from nemo_ext.serving.client.requests import Completion
from nemo_ext.serving.completions.completion_store import CompletionStore
with CompletionStore(Path(sys.argv[1])) as store:
    for i in range(10**9):
        store.append([Completion(f"k{i}", "x" * (i % 500), "stop", 1, 1, 0.1, None, 1)])
"""


def test_a_killed_writer_loses_nothing_it_appended(tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT)
        size = path.stat().st_size if path.exists() else 0
        wait_until(lambda before=size: path.exists() and path.stat().st_size > before + 100_000)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()
        with CompletionStore(path) as store:
            assert store.num_corrupt == 0
            assert all(f"k{i}" in store for i in range(len(store)))
