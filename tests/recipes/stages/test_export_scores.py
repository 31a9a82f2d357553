"""The stage export_scores, on an evaluation made by hand."""

from pathlib import Path

import pytest

from recipes.stages.export_scores import Config, check, run
from tests.nemo_ext.interop.evaluation_folder import write


def _config(tmp_path: Path, **fields: object) -> Config:
    settings = {"name": "export_scores", "uses": "export_scores", "output_dir": str(tmp_path / "out"),
                "input": str(tmp_path / "evaluate")}  # fmt: skip
    return Config(**settings | fields)  # type: ignore[arg-type]


def test_both_formats(tmp_path: Path) -> None:
    write(tmp_path / "evaluate")
    facts = run(_config(tmp_path))
    assert facts.rows_in == facts.rows_out == 10
    assert all(path.is_file() for path in facts.outputs)
    assert {path.relative_to(tmp_path / "out").parts[0] for path in facts.outputs} == {"lm_eval", "nemo_skills"}


def test_once_more_writes_the_same_files(tmp_path: Path) -> None:
    write(tmp_path / "evaluate")
    first = {path: path.read_bytes() for path in run(_config(tmp_path)).outputs}
    assert {path: path.read_bytes() for path in run(_config(tmp_path)).outputs} == first


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    (write(tmp_path / "evaluate") / "scores.json").unlink()
    with pytest.raises(ValueError, match="must be the folder of a finished evaluation"):
        run(_config(tmp_path))


@pytest.mark.parametrize("formats", [[], ["lm_eval", "helm"]])
def test_formats_are_checked_before_anything_runs(tmp_path: Path, formats: list[str]) -> None:
    with pytest.raises(ValueError, match="it may hold lm_eval and nemo_skills"):
        check(_config(tmp_path, formats=formats))
