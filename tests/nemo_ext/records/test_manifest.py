import json
import os
from collections import Counter
from pathlib import Path

import pytest

from nemo_ext.records import manifest
from nemo_ext.records.manifest import Facts


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A finished stage with one input and one output."""
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "output.jsonl").write_text('{"a": 1}\n')
    (folder / "dropped.jsonl").write_text('{"a": 21}\n')
    (tmp_path / "model.safetensors").write_text("weights 1")
    facts = Facts(
        inputs=[tmp_path / "in.jsonl"],
        listed=[f"{tmp_path}/*.jsonl"],
        model_files=[tmp_path / "model.safetensors"],
        outputs=[folder / "output.jsonl"],
        rows_in=2,
        rows_out=1,
        dropped=Counter(short=1),
        seeds={"x": 3},
    )
    manifest.write(folder, "filter", "filter", "abc", facts, 1.23456)
    return folder


def rewrite(path: Path, text: str) -> None:
    """With another modification time, whatever the clock's grain."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_what_it_holds(done: Path) -> None:
    read = manifest.read(done)
    assert (read["stage"], read["rows_in"], read["rows_out"], read["dropped"]) == ("filter", 2, 1, {"short": 1})
    assert (read["config_hash"], read["seconds"], read["seeds"]) == ("abc", 1.235, {"x": 3})
    assert read["inputs"][0]["rows"] == 2 and len(read["outputs"][0]["sha256"]) == 64
    assert read["code_version"] != "unknown"


def test_done_stays_done(done: Path) -> None:
    assert manifest.out_of_date(done, "abc") is None


def test_a_touched_file_is_the_same(done: Path) -> None:
    rewrite(done / "output.jsonl", '{"a": 1}\n')
    assert manifest.out_of_date(done, "abc") is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("in.jsonl", "input"),
        ("model.safetensors", "model file"),
        ("stage/output.jsonl", "output"),
        ("stage/dropped.jsonl", "file"),
        ("stage/manifest.json", "file"),
    ],
)
def test_a_changed_or_missing_file_is_named(done: Path, name: str, kind: str) -> None:
    path = done.parent / name
    rewrite(path, path.read_text().replace("1", "7"))
    assert manifest.out_of_date(done, "abc") == f"{kind} {path} changed"
    path.unlink()
    assert manifest.out_of_date(done, "abc") == f"{kind} {path} is gone"


def test_another_config_is_not_done(done: Path) -> None:
    assert manifest.out_of_date(done, "abd") == "its config changed"


def test_an_edit_with_the_old_length_and_date_is_seen(done: Path) -> None:
    path = done.parent / "in.jsonl"
    before = path.stat()
    path.write_text(path.read_text().replace("1", "7"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert manifest.out_of_date(done, "abc") == f"input {path} changed"


def test_another_file_that_would_be_read_too_is_named(done: Path) -> None:
    (done / "output_00001.jsonl").write_text("")  # its own
    (done.parent / "train.old1").mkdir()
    assert manifest.out_of_date(done, "abc") is None
    (done.parent / "more.jsonl").write_text("{}\n")
    assert manifest.out_of_date(done, "abc") == f"input {done.parent / 'more.jsonl'} is new"
    assert manifest.inputs_changed(done) == f"input {done.parent / 'more.jsonl'} is new"


def test_what_a_stage_read_is_looked_at_apart(done: Path) -> None:
    rewrite(done / "output.jsonl", "{}\n")
    assert manifest.inputs_changed(done) is None
    rewrite(done.parent / "model.safetensors", "weights 2")
    assert manifest.inputs_changed(done) == f"model file {done.parent / 'model.safetensors'} changed"


@pytest.mark.parametrize(
    "text",
    [
        None, "", '{"config_ha', "[]", "null", "7", "{}", '{"config_hash": "abc"}', "\udcff",
        '{"config_hash": "abc", "inputs": [], "outputs": []}',
        '{"config_hash": "abc", "inputs": [7], "listed": [], "model_files": [], "outputs": [], "beside": []}',
        '{"config_hash": "abc", "inputs": [], "listed": [7], "model_files": [], "outputs": [], "beside": []}',
        '{"config_hash": "abc", "inputs": {}, "listed": [], "model_files": [], "outputs": [], "beside": []}',
        '{"config_hash": "abc", "inputs": [{"path": 3}], "listed": [], "model_files": [], "outputs": [], "beside": []}',
    ],
)  # fmt: skip
def test_without_a_whole_done_file_it_is_not_finished(done: Path, text: str | None) -> None:
    (done / manifest.DONE).unlink()
    if text is not None:
        (done / manifest.DONE).write_bytes(text.encode(errors="surrogateescape"))
    assert manifest.out_of_date(done, "abc") == "not finished"


def test_rows_must_add_up(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="3 rows in, 1 out and 1 dropped"):
        manifest.write(tmp_path, "s", "s", "h", Facts(rows_in=3, rows_out=1, dropped=Counter(x=1)), 0)
    assert not list(tmp_path.iterdir())


def test_the_files_hold_as_many_rows_as_were_counted(tmp_path: Path) -> None:
    for name, rows in (("output_00000.jsonl", 2), ("output_00001.jsonl", 1)):
        (tmp_path / name).write_text("{}\n" * rows)
    outputs = sorted(tmp_path.glob("output*"))
    manifest.write(tmp_path, "s", "s", "h", Facts(outputs=outputs, rows_in=3, rows_out=3), 0)
    outputs[1].write_text("")
    with pytest.raises(ValueError, match="3 rows were written, and its files hold 2"):
        manifest.write(tmp_path, "s", "s", "h", Facts(outputs=outputs, rows_in=3, rows_out=3), 0)


def test_reading_an_unfinished_stage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has not finished"):
        manifest.read(tmp_path)


def test_done_comes_last(done: Path) -> None:
    assert json.loads((done / manifest.DONE).read_text())["config_hash"] == "abc"
    assert (done / manifest.DONE).stat().st_mtime_ns >= (done / manifest.MANIFEST).stat().st_mtime_ns
