"""Files as NeMo-Skills' eval leaves them."""

import json
from pathlib import Path

import pytest

from nemo_ext.interop.nemo_skills import write_nemo_skills
from tests.nemo_ext.interop.evaluation_folder import rows, scores
from tests.nemo_ext.rows.solution_forms import in_every_form


def test_a_file_for_each_sample(tmp_path: Path) -> None:
    write_nemo_skills(tmp_path, rows(), scores())
    folder = tmp_path / "eval-results" / "gsm8k"
    names = ["output-rs0.jsonl", "output-rs0.jsonl.done", "output-rs1.jsonl", "output-rs1.jsonl.done"]
    assert sorted(path.name for path in folder.iterdir()) == names
    second = [json.loads(line) for line in (folder / "output-rs1.jsonl").read_text().splitlines()]
    assert [row["id"] for row in second] == ["0", "1", "2"]
    assert second[1]["predicted_answer"] == "3" and second[1]["num_generated_tokens"] == 6
    assert [row["is_correct"] for row in second] == [row["symbolic_correct"] for row in second] == [False] * 3
    assert [row["judgement"] for row in second] == ["Judgement: No", "Judgement: Yes", "Judgement: No"]


def test_greedy_is_one_file(tmp_path: Path) -> None:
    write_nemo_skills(tmp_path, rows(1), scores(1))
    assert (tmp_path / "eval-results" / "amc23" / "output.jsonl").read_text().count("\n") == 2
    metrics = json.loads((tmp_path / "eval-results" / "metrics.json").read_text())
    assert metrics["amc23"] == {"pass@1": {"num_entries": 2, "symbolic_correct": 100.0, "no_answer": 0.0}}


def test_metrics_are_percentages_under_their_names(tmp_path: Path) -> None:
    metrics = json.loads(write_nemo_skills(tmp_path, rows(), scores())[-1].read_text())
    assert set(metrics["gsm8k"]) == {"pass@1[avg-of-2]", "pass@2"}
    assert metrics["gsm8k"]["pass@1[avg-of-2]"]["symbolic_correct"] == 50.0


def test_a_rules_verdict_stays_one_under_a_judges_contract(tmp_path: Path) -> None:
    """is_correct is the judge's there, and NeMo-Skills reads it as the rules'."""
    judged = [row | {"is_correct": row["verdicts"]["judge"]} for row in rows(1)]
    path = write_nemo_skills(tmp_path, judged, scores(1))[0]
    first = json.loads(path.read_text().splitlines()[0])
    assert first["symbolic_correct"] is True and first["judgement"] == "Judgement: No"


def test_problems_with_fewer_samples_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gsm8k: problem 2 has 1 samples, the others 2"):
        write_nemo_skills(tmp_path, [*rows()[:5], *rows()[6:]], scores())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@in_every_form
def test_a_solution_in_another_column(tmp_path: Path, form) -> None:
    def written(folder: Path, made: list[dict]) -> list[dict]:
        paths = write_nemo_skills(folder, made, scores())
        return [json.loads(line) for path in paths[:-1] for line in path.read_text().splitlines()]

    assert written(tmp_path / "a", [form(row) for row in rows()]) == written(tmp_path / "b", rows())
