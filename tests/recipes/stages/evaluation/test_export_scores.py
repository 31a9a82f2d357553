"""The stage export_scores, on an evaluation made by hand."""

from pathlib import Path

import pytest

from recipes.stages.evaluation.export_scores import Config, check, run
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


def test_what_a_killed_run_had_begun_to_write_is_gone(tmp_path: Path) -> None:
    write(tmp_path / "evaluate")
    whole = {path: path.read_bytes() for path in run(_config(tmp_path)).outputs}
    for path in list(whole):
        path.rename(path.with_name(f".{path.name}.k1ll3d.tmp"))
    assert {path: path.read_bytes() for path in run(_config(tmp_path)).outputs} == whole
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    (write(tmp_path / "evaluate") / "scores.json").unlink()
    with pytest.raises(ValueError, match="has no scores.json: give the folder of an evaluate"):
        run(_config(tmp_path))


@pytest.mark.parametrize("formats", [[], ["lm_eval", "helm"]])
def test_formats_are_checked_before_anything_runs(tmp_path: Path, formats: list[str]) -> None:
    with pytest.raises(ValueError, match="it may hold lm_eval and nemo_skills"):
        check(_config(tmp_path, formats=formats))


def test_samples_that_lie_apart_are_no_problems_of_their_own(tmp_path: Path) -> None:
    rows = (write(tmp_path / "evaluate") / "output.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "evaluate" / "output.jsonl").write_text("".join([*rows[1:], rows[0]]))
    with pytest.raises(ValueError, match="the samples of gsm8k 0 lie apart"):
        run(_config(tmp_path, formats=["lm_eval"]))


def test_uneven_samples_say_which_layout_can_hold_them(tmp_path: Path) -> None:
    rows = (write(tmp_path / "evaluate") / "output.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "evaluate" / "output.jsonl").write_text("".join(rows[1:]))
    with pytest.raises(ValueError, match=r"1 to 2 samples, .*formats=\[lm_eval\]"):
        run(_config(tmp_path))
    assert not (tmp_path / "out").exists(), "nothing half written"
    assert run(_config(tmp_path, formats=["lm_eval"])).rows_out == 9


def test_no_benchmark_is_called_out_of_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "evaluate")
    for name in ("output.jsonl", "scores.json"):
        (folder / name).write_text((folder / name).read_text().replace("gsm8k", "../../gsm/8k"))
    written = run(_config(tmp_path)).outputs
    assert all(path.is_file() and ".." not in path.parts for path in written)
    assert not list(tmp_path.glob("out/**/gsm/*")) and "..__..__gsm__8k" in {path.parent.name for path in written}
