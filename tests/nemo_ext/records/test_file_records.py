"""Files known by their content."""

import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.records import file_records
from nemo_ext.records.file_records import content_hash, describe_file, describe_files, difference, fingerprint


def test_described_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n\n{}")
    (tmp_path / "b.bin").write_bytes(b"abc")
    first, second = describe_files([tmp_path / "a.jsonl", tmp_path / "b.bin"])
    assert (first["rows"], first["bytes"]) == (2, 6) and "rows" not in second
    assert second["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"0123456789" * 100)
    return path


def test_an_edit_of_the_same_length_is_seen_even_if_the_date_is_put_back(file: Path) -> None:
    recorded, before = describe_file(file), file.stat()
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert difference(recorded) == "changed"


def test_another_file_of_the_same_length_and_date_is_seen(file: Path, tmp_path: Path) -> None:
    """As `cp -p` and `rsync --times` leave it."""
    recorded, other = describe_file(file), tmp_path / "other"
    other.write_bytes(b"9876543210" * 100)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    shutil.copy2(other, file)
    assert difference(recorded) == "changed"


def test_a_copy_and_a_touched_file_are_the_same(file: Path, tmp_path: Path) -> None:
    recorded = describe_file(file)
    os.utime(file, ns=(1, 1))
    file.chmod(0o600)
    assert difference(recorded) is None
    shutil.copyfile(file, tmp_path / "copy")
    assert difference(recorded, tmp_path / "copy") is None
    file.unlink()
    assert difference(recorded) == "is gone"


def test_a_fingerprint_stands_for_names_and_contents_and_not_for_the_place(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copyfile(file, tmp_path / "elsewhere" / file.name))
    renamed = Path(shutil.copyfile(file, tmp_path / "another"))
    assert fingerprint([file]) == fingerprint([copy]) != fingerprint([renamed])
    assert fingerprint([file, renamed]) == fingerprint([renamed, file])


@settings(deadline=None)
@given(st.binary(max_size=50), st.binary(max_size=50))
def test_a_file_is_known_by_its_bytes(tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes) -> None:
    path = tmp_path_factory.mktemp("known") / "file"
    path.write_bytes(first)
    recorded = describe_file(path)
    path.unlink()
    path.write_bytes(second)
    assert (difference(recorded) is None) == (first == second)
    assert (content_hash(path) == recorded["sha256"]) == (first == second)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read whole."""
    read: list[Path] = []
    plain = file_records.sha256_file
    monkeypatch.setattr(file_records, "sha256_file", lambda path: (read.append(path), plain(path))[1])
    monkeypatch.setattr(file_records, "_known", {})
    return read


def other_process(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    monkeypatch.setattr(file_records, "_known", {})
    file_records.recall(store)


def test_what_one_process_hashed_another_need_not_read(
    file: Path, tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_records, "RACY_NS", 0)
    time.sleep(0.05)  # longer than a file system counts as one moment
    store = tmp_path / "hashes.json"
    first = content_hash(file)
    file_records.keep(store, [file])
    other_process(monkeypatch, store)
    assert content_hash(file) == first and hashed == [file]
    before, content = file.stat(), bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    other_process(monkeypatch, store)
    assert content_hash(file) != first and hashed == [file, file], "its change time is another"


def test_the_hash_of_a_file_that_has_just_changed_is_not_left_for_others(
    file: Path, tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "hashes.json"
    content_hash(file, just_written=True)
    file_records.keep(store, [file])
    assert not store.exists()
    monkeypatch.setattr(file_records, "RACY_NS", 0)
    file_records.keep(store, [file])
    monkeypatch.undo()
    monkeypatch.setattr(file_records, "_known", {})
    file_records.recall(store)
    assert not file_records._known, "nor taken up where somebody has left it"


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"/x": 1}', '{"/x": [[1, 2, 3, 4], "no hash", 5]}', '{"/x": [[1], "00", 5]}']
)
def test_a_store_of_something_else_says_nothing(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hashes.json").write_text(text)
    monkeypatch.setattr(file_records, "_known", {})
    file_records.recall(tmp_path / "hashes.json")
    assert not file_records._known
