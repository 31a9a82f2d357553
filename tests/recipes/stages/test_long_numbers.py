"""Answers of more digits than a machine's integer has, from a file to the rows that come out."""

import json
from pathlib import Path

import pytest

LONG = 12345678901234567890123


@pytest.mark.parametrize(("boxed", "is_correct"), [(LONG, True), (LONG + 1, False), (12345678901234567741440, False)])
def test_a_long_answer_is_graded_exactly(run, tmp_path: Path, boxed: int, is_correct: bool) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"problem": "P", "generation": f"\\boxed{{{boxed}}}", "expected_answer": LONG, "n": LONG}) + "\n"
    )
    ran = run("grade", input=str(path))
    assert ran.output[0]["is_correct"] is is_correct
    assert (ran.output[0]["expected_answer"], ran.output[0]["n"]) == (str(LONG), LONG)
    again = run("grade", input=str(tmp_path / "out"), folder="again")
    assert again.output[0]["is_correct"] is is_correct and again.output[0]["n"] == LONG


def test_seed_problems_and_duplicates_keep_it(run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"id": LONG + i, "problem": f"P{i % 2}", "answer": LONG} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = run("prepare_problems", sources={"own": {"path": str(path)}})
    assert [row["expected_answer"] for row in ran.output] == [str(LONG)] * 2
    kept = run("deduplicate", input=str(path), by=["problem"], folder="unique")
    assert [row["id"] for row in kept.output] == [LONG, LONG + 1] and kept.dropped[0]["duplicate_of"] == LONG
