import json
from pathlib import Path

import pytest

from nemo_ext.rows.outside.adopt import adopt
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.outside.known_shapes import normalise
from nemo_ext.rows.row import content_id


def test_gsm8k() -> None:
    raw = {"question": " How many? ", "answer": "She has 2*3=<<2*3=6>>6.\nThen 1,200.\n#### 1,200"}
    assert normalise(raw, "gsm8k") == {
        "id": content_id("How many?"),
        "problem": "How many?",
        "expected_answer": "1200",
        "problem_source": "gsm8k",
        "solution": "She has 2*3=6.\nThen 1,200.\nThe answer is \\boxed{1200}.",
    }


def test_math() -> None:
    raw = {"problem": "P", "solution": r"so $\boxed{\frac{1}{2}}$", "level": "Level 5", "subject": "Algebra"}
    row = normalise(raw, "math")
    assert (
        row["expected_answer"] == r"\frac{1}{2}" and row["solution"] == raw["solution"] and row["level"] == "Level 5"
    )


def test_openmathinstruct2() -> None:
    raw = {
        "problem": "P",
        "generated_solution": r"\boxed{3}",
        "expected_answer": "3",
        "problem_source": "augmented_math",
    }
    row = normalise(raw, "x")
    assert (row["problem_source"], row["expected_answer"], row["generated_solution"]) == (
        "augmented_math",
        "3",
        r"\boxed{3}",
    )
    del raw["expected_answer"]
    assert normalise(raw, "x")["expected_answer"] == "3"


@pytest.mark.parametrize(("answer", "expected"), [(27.0, "27"), (0.5, "0.5"), (0, "0"), ("025", "025"), (-3.0, "-3")])
def test_contest_answers(answer: object, expected: str) -> None:
    assert normalise({"problem": "P", "answer": answer}, "amc23")["expected_answer"] == expected


@pytest.mark.parametrize("raw", [{}, {"problem": "  "}, {"problem": None, "answer": "1"}, {"question": 3}])
def test_no_problem(raw: dict) -> None:
    with pytest.raises(BadRow, match="^no_problem$"):
        normalise(raw, "x")


@pytest.mark.parametrize(
    "more", [{}, {"answer": None}, {"answer": ""}, {"solution": "no box"}, {"answer": True}, {"answer": {"a": 1}}]
)
def test_no_answer(more: dict) -> None:
    with pytest.raises(BadRow, match="^no_answer$"):
        normalise({"problem": "P", **more}, "x")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"problem": "P", "generation": r"\boxed{1}", "answer": 7}, "7"),
        ({"problem": "P", "generation": r"\boxed{1}", "solution": r"\boxed{2}"}, "2"),
        ({"problem": "P", "solution": r"\boxed{1}", "answer": "7"}, "7"),
        ({"query": "P", "response": r"\boxed{3}"}, "3"),
        ({"problem": "P", "answer": 12345678901234567890123}, "12345678901234567890123"),
    ],
)
def test_a_reference_comes_before_a_solution_s_own_box(raw: dict, expected: str) -> None:
    row = normalise(raw, "x")
    assert (row["problem"], row["expected_answer"]) == ("P", expected)


def test_no_answer_where_none_is_required() -> None:
    row = normalise({"problem": "P", "solution": "The answer is: 2"}, "", require_answer=False)
    assert (row["expected_answer"], row["solution"]) == (None, "The answer is: 2")


def test_the_source_of_published_sets() -> None:
    assert normalise({"problem": "P", "answer": 1, "source": "amc_aime"}, "")["problem_source"] == "amc_aime"
    assert normalise({"problem": "P", "answer": 1, "source": "amc_aime"}, "math")["problem_source"] == "math"


@pytest.mark.parametrize(
    ("raw", "adopted"),
    [
        (
            {"id": 1, "problem": "P", "solution": r"\boxed{2}", "source": "olympiads", "messages": []},
            {"generation": r"\boxed{2}", "expected_answer": "2", "problem_source": "olympiads"},
        ),
        (
            {"id": 1, "problem": "P", "generation": "1", "solution": r"\boxed{2}", "expected_answer": None},
            {"generation": "1", "expected_answer": "2"},
        ),
        ({"id": 1, "query": "P", "response": "R", "answer": "3"}, {"generation": "R", "expected_answer": "3"}),
        ({"id": 1, "problem": "P", "source": "x", "problem_source": "math"}, {"problem_source": "math"}),
    ],
)
def test_adopted_rows_have_the_pipeline_s_names(raw: dict, adopted: dict) -> None:
    row = adopt(raw).row
    assert row["problem"] == "P" and {key: row.get(key) for key in adopted} == adopted
    assert row.keys() >= set(raw) - {"query", "answer"}


def test_own_ids_are_kept_as_text() -> None:
    assert normalise({"id": 0, "problem": "P", "answer": 1}, "x")["id"] == "0"
    assert normalise({"id": "", "problem": "P", "answer": 1}, "x")["id"] == content_id("P")


@pytest.mark.parametrize(
    ("name", "count"),
    [("gsm8k_test", 1319), ("gsm8k_train", 7473), ("math500_test", 500), ("amc23_test", 40), ("aime24_test", 30)],
)
def test_every_real_row_has_a_problem_and_an_answer(shared_data: Path, name: str, count: int) -> None:
    rows = [json.loads(line) for line in (shared_data / f"{name}.jsonl").read_text().splitlines()]
    made = [normalise(row, name) for row in rows]
    assert len(made) == count
    assert all(row["problem"] and row["expected_answer"] for row in made)
    assert not any("<<" in row.get("solution", "") for row in made if name.startswith("gsm8k"))
