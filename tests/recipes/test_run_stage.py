"""The main process of every task: exit codes, error.json, and one writer per folder."""

import fcntl
import json
import logging
from pathlib import Path

import pytest

from nemo_ext.records import manifest
from nemo_ext.records.files import write_text_atomic
from recipes import run_stage


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_stage, "die_with_parent", lambda signum: None)


def task(folder: Path, **keys: object) -> Path:
    content = {
        "uses": "toy_corpus",
        "name": "corpus",
        "output_dir": str(folder),
        "kind": "base",
        "num_rows": 3,
        **keys,
    }
    write_text_atomic(folder / "config.yaml", json.dumps(content))
    return folder / "config.yaml"


def main(path: Path) -> int:
    return run_stage.main(["run_stage", str(path)])


def test_a_finished_stage_is_done(tmp_path: Path) -> None:
    path = task(tmp_path)
    (tmp_path / "error.json").write_text("an error of yesterday")
    assert main(path) == 0
    assert not (tmp_path / "error.json").exists()
    digest = manifest.read(tmp_path)["config_hash"]
    assert manifest.out_of_date(tmp_path, digest) is None
    content = json.loads(path.read_text())
    assert (
        digest
        == run_stage.config_hash(content | {"resources": {"gpus": 8}})
        != run_stage.config_hash(content | {"seed": 1})
    )


def test_the_objective_that_there_always_was_leaves_the_hash_as_it_was() -> None:
    content = {"uses": "train_sft", "lr": 1e-5}
    assert run_stage.config_hash(content | {"objective": {"kind": "sft"}}) == run_stage.config_hash(content)
    assert run_stage.config_hash(content | {"objective": {"kind": "dpo"}}) != run_stage.config_hash(content)


def test_an_error_is_told_in_error_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = task(tmp_path, uses="grade", input=str(tmp_path / "none"))
    loaded = json.loads(path.read_text())
    path.write_text(json.dumps({key: loaded[key] for key in ("uses", "name", "output_dir", "input")}))
    with caplog.at_level(logging.ERROR):
        assert main(path) == 1
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["type"] == "ValueError" and "no such file" in error["error"]
    assert "Traceback" in caplog.text
    assert not (tmp_path / manifest.DONE).exists()


def test_a_config_that_does_not_fit_is_told(tmp_path: Path) -> None:
    assert main(task(tmp_path, colour="red")) == 1
    assert "colour" in json.loads((tmp_path / "error.json").read_text())["error"]


def test_one_writer_per_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_stage, "LOCK_WAIT_S", 0.3)
    path = task(tmp_path)
    with (tmp_path / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert main(path) == 1
    assert "another process is writing here" in json.loads((tmp_path / "error.json").read_text())["error"]
    assert main(path) == 0


def test_other_ranks_write_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(task(tmp_path)) == 0
    assert not (tmp_path / manifest.DONE).exists()


def test_usage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="usage"):
        run_stage.main(["run_stage"])
