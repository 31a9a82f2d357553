import json
import os
from collections import Counter
from pathlib import Path

import pytest

from nemo_ext import manifest
from nemo_ext.manifest import Facts


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A finished stage with one input and one output."""
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "output.jsonl").write_text('{"a": 1}\n')
    facts = Facts(
        inputs=[tmp_path / "in.jsonl"],
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


@pytest.mark.parametrize(("name", "kind"), [("in.jsonl", "input"), ("stage/output.jsonl", "output")])
def test_a_changed_or_missing_file_is_named(done: Path, name: str, kind: str) -> None:
    path = done.parent / name
    rewrite(path, path.read_text().replace("1", "7"))
    assert manifest.out_of_date(done, "abc") == f"{kind} {path} changed"
    path.unlink()
    assert manifest.out_of_date(done, "abc") == f"{kind} {path} is gone"


def test_another_config_is_not_done(done: Path) -> None:
    assert manifest.out_of_date(done, "abd") == "its config changed"


@pytest.mark.parametrize("text", [None, "", '{"config_ha'])
def test_without_a_whole_done_file_it_is_not_finished(done: Path, text: str | None) -> None:
    (done / manifest.DONE).unlink()
    if text is not None:
        (done / manifest.DONE).write_text(text)
    assert manifest.out_of_date(done, "abc") == "not finished"


def test_rows_must_add_up(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="3 rows in, 1 out and 1 dropped"):
        manifest.write(tmp_path, "s", "s", "h", Facts(rows_in=3, rows_out=1, dropped=Counter(x=1)), 0)
    assert not list(tmp_path.iterdir())


def test_reading_an_unfinished_stage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has not finished"):
        manifest.read(tmp_path)


def test_done_comes_last(done: Path) -> None:
    assert json.loads((done / manifest.DONE).read_text())["config_hash"] == "abc"
    assert (done / manifest.DONE).stat().st_mtime_ns >= (done / manifest.MANIFEST).stat().st_mtime_ns


def test_a_model_is_known_by_its_files(tmp_path: Path) -> None:
    assert manifest.model_fingerprint("org/name") == "org/name"
    (tmp_path / "config.json").write_text("{}")
    seen = {manifest.model_fingerprint(tmp_path)}
    weights = tmp_path / "model.safetensors"
    content = bytearray(3 * manifest.FINGERPRINT_BYTES)
    for change in (None, 0, len(content) - 1):
        if change is not None:
            content[change] ^= 1
        weights.write_bytes(content)
        seen.add(manifest.model_fingerprint(tmp_path))
    weights.write_bytes(content + b"x")
    seen.add(manifest.model_fingerprint(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    seen.add(manifest.model_fingerprint(tmp_path))
    assert len(seen) == 6
