"""The benchmarks' runner, without measuring anything."""

from pathlib import Path

import pytest

from tests.bench import bench_grading
from tests.bench.run import main


def test_a_bench_without_its_data_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_grading, "NEEDS", (tmp_path, tmp_path / "answers.jsonl"))
    assert main(["run", "grading"]) == 1
    said = capsys.readouterr()
    assert f"bench grading: not measured, there is no {tmp_path / 'answers.jsonl'}" in said.err
    assert not said.out


def test_an_unknown_bench_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "grades"]) == 2
    assert "no bench grades; there are: average" in capsys.readouterr().err
