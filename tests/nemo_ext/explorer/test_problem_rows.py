import json
from pathlib import Path

import pytest

from nemo_ext.explorer.problem_rows import constant_fields, disagree, listed, problems, samples, summary, votes
from tests.nemo_ext.explorer.explored_runs import sample, write_lines
from tests.nemo_ext.rows.solution_forms import in_every_form


def grouped(tmp_path: Path, rows: list[dict]) -> list[list[int]]:
    write_lines(tmp_path / "output.jsonl", rows)
    return [[row.get("sample") for row in group] for group in problems([tmp_path / "output.jsonl"])]


def test_a_problem_that_a_benchmark_holds_twice_is_two(tmp_path: Path) -> None:
    rows = [sample(1, s, True) for s in (0, 1, 0, 1)] + [sample(2, 0, True)]
    assert grouped(tmp_path, rows) == [[0, 1], [0, 1], [0]]


def test_rows_without_a_sample_are_a_problem_each(tmp_path: Path) -> None:
    rows = [{"benchmark": "b", "id": i, "problem": "p", "generation": "g"} for i in (1, 1, 2)]
    assert grouped(tmp_path, rows) == [[None], [None], [None]]


def test_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"output.jsonl:1: not a row of an evaluation.*it has id, text"):
        grouped(tmp_path, [{"id": 1, "text": "x"}])


def test_right_answers_vote_together_however_they_are_spelled() -> None:
    answers = [("0.5", True), (r"\frac{1}{2}", True), ("1/2", True), ("3", False), ("$3$", False), (None, False)]
    rows = [sample(1, i, ok, predicted_answer=answer) for i, (answer, ok) in enumerate(answers)]
    voted = votes(rows)
    assert voted.groups == [0, 0, 0, 1, 1, None]
    assert (voted.votes, voted.is_correct, voted.answer) == (3, True, "0.5")


def test_the_majority_may_be_wrong_and_no_answer_never_wins() -> None:
    rows = [
        sample(7, 0, True),
        *(sample(7, s, False) for s in (1, 2)),
        *(sample(7, s, False, predicted_answer=None) for s in (3, 4, 5)),
    ]
    voted = votes(rows)
    assert (voted.answer, voted.votes, voted.is_correct) == ("8", 2, False)
    assert summary(rows, voted) == [6, 1, "8", 2, False, 3, 0, 0, 22]
    assert votes(rows[3:]).answer is None


def test_graders_disagree_only_when_both_spoke() -> None:
    assert disagree({"verdicts": {"symbolic": True, "judge": False}})
    assert (
        not disagree({"verdicts": {"symbolic": True, "judge": None}})
        and not disagree({})
        and not disagree({"verdicts": None})
    )


def test_what_samples_share_is_written_once() -> None:
    rows = [sample(1, s, True, code_output=f"out {s}", license="mit", id=5) for s in range(3)]
    assert constant_fields(rows) == {"solution": "It is $\\boxed{1}$.", "license": "mit"}
    assert [each[-1] for each in samples(rows, votes(rows), constant_fields(rows))] == [
        {"code_output": f"out {s}"} for s in range(3)
    ]
    assert "mit" not in json.dumps(list(samples(rows, votes(rows), constant_fields(rows))))


def test_a_long_problem_is_whole_in_its_part_alone() -> None:
    rows = [sample(1, 0, True, problem="x" * 5000)]
    assert len(listed(rows)[2]) == 2000 and constant_fields(rows)["problem"] == "x" * 5000


@in_every_form
def test_a_solution_in_another_column(tmp_path: Path, form) -> None:
    rows = [form(sample(1, s, True)) for s in range(3)]
    write_lines(tmp_path / "output.jsonl", rows)
    (group,) = problems([tmp_path / "output.jsonl"])
    fields = constant_fields(group)
    shown = list(samples(group, votes(group), fields))
    assert [values[9] for values in shown] == [sample(1, s, True)["generation"] for s in range(3)]
    assert "generated_solution" not in fields and not any("generated_solution" in values[-1] for values in shown)
    before = {row.get("generation") for row in rows} & {"as it was"}
    assert [values[-1].get("generation") for values in shown] == [*before, *before, *before] or not before
