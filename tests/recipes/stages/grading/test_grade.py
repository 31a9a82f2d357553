"""The grade stage: its columns, other graders beside ours, and rows it cannot grade."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.conftest import Ran, lines

Run = Callable[..., Ran]
Write = Callable[[list[dict[str, Any]]], str]


def _row(number: int, generation: Any, expected: Any) -> dict[str, Any]:
    return {"id": str(number), "problem": f"Problem {number}?", "generation": generation, "expected_answer": expected}


def test_columns(run: Run, rows: Write) -> None:
    given = [
        _row(0, r"It is \boxed{16}.", "16"),
        _row(1, r"It is \boxed{\frac{2}{4}}.", "0.5"),
        _row(2, r"It is \boxed{500}.", "5"),
        _row(3, "I do not know.", "5"),
        _row(4, r"It is \boxed{10^{10^{10}}}.", "10^{10^{11}}"),
        _row(5, r"It is \boxed{\log 100}.", "2"),
        _row(6, r"It is \boxed{27}.", 27.0),
    ]
    ran = run("grade", input=rows(given))
    keys = ("predicted_answer", "is_correct", "verdict", "grade_method")
    assert [tuple(row[key] for key in keys) for row in ran.output] == [
        ("16", True, "equal", "exact"),
        (r"\frac{2}{4}", True, "equal", "numeric"),
        ("500", False, "different", "numeric"),
        (None, False, "different", "no_answer"),
        ("10^{10^{10}}", False, "undecided", "too_large"),
        (r"\log 100", True, "equal", "math_verify"),
        ("27", True, "equal", "exact"),
    ]
    assert [row["problem"] for row in ran.output] == [row["problem"] for row in given]
    assert not ran.dropped and "graded_by" not in ran.output[0]
    figures = ran.manifest["figures"]
    assert {key: figures[key] for key in ("correct", "different", "undecided", "no_answer")} == {
        "correct": 4, "different": 2, "undecided": 1, "no_answer": 1,
    }  # fmt: skip
    assert figures["grader"].startswith("rules-")


def test_other_graders_beside_ours(run: Run, rows: Write) -> None:
    given = [_row(0, r"\boxed{016}", "16"), _row(1, r"\boxed{18 dollars}", "18"), _row(2, r"\boxed{x+1}", "1+x")]
    ran = run("grade", input=rows(given), also=["hendrycks", "integer", "math_verify"])
    assert [row["graded_by"] for row in ran.output] == [
        {"default": True, "hendrycks": False, "integer": True, "math_verify": True},
        {"default": True, "hendrycks": False, "integer": True, "math_verify": False},
        {"default": True, "hendrycks": False, "integer": None, "math_verify": True},
    ]
    assert all(row["is_correct"] for row in ran.output)
    figures = ran.manifest["figures"]
    assert (figures["hendrycks_disagrees"], figures["integer_agrees"], figures["integer_disagrees"]) == (3, 2, 1)
    assert (figures["math_verify_agrees"], figures["math_verify_disagrees"]) == (2, 1)


def test_another_grader_decides(run: Run, rows: Write) -> None:
    ran = run("grade", input=rows([_row(0, r"\boxed{2016}", "16")]), grader="integer_mod_1000")
    assert ran.output[0]["is_correct"] and ran.output[0]["grade_method"] == "integer"


def test_rows_that_cannot_be_graded_are_dropped_with_a_reason(run: Run, rows: Write) -> None:
    no_answers = [_row(i, r"\boxed{1}", known) for i, known in enumerate([None, "", "  ", True, [1], {"a": 1}])]
    lacking = {"id": "7", "problem": "P?", "generation": r"\boxed{1}"}
    no_text = [_row(8, None, "1"), {"id": "9", "problem": "P?", "expected_answer": "1"}]
    ran = run("grade", input=rows([*no_answers, lacking, *no_text, _row(10, r"\boxed{1}", "1")]))
    assert ran.reasons == ["no_expected_answer"] * 7 + ["no_generation"] * 2
    assert len(ran.output) == 1
    assert ran.manifest["dropped"] == {"no_expected_answer": 7, "no_generation": 2}


def test_rows_that_only_have_an_answer_are_graded_by_it(run: Run, rows: Write) -> None:
    given = [{"id": "0", "problem": "P?", "predicted_answer": "0.5", "expected_answer": "1/2"}]
    ran = run("grade", input=rows(given))
    assert ran.output[0]["is_correct"]


def test_the_result_does_not_depend_on_the_number_of_workers(run: Run, rows: Write) -> None:
    given = [_row(i, rf"\boxed{{\log 10^{{{i % 7}}}}}", str(i % 5)) for i in range(300)]
    folder = rows(given)
    one, four = (run("grade", f"out{n}", input=folder, workers=n, also=["integer"]) for n in (1, 4))
    assert (one.folder / "output.jsonl").read_bytes() == (four.folder / "output.jsonl").read_bytes()
    assert one.manifest["figures"] == four.manifest["figures"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"grader": "sympy"}, "stages.out.grader: got 'sympy', choose one of default, math_verify"),
        ({"also": ["integer", "x"]}, "stages.out.grader: got 'x'"),
        ({"extractor": "regex"}, "stages.out.extractor='regex'; it may be one of default, boxed"),
        ({"timeout_s": 0}, "stages.out.timeout_s=0.0; it must be above 0"),
    ],
)
def test_settings_are_checked(run: Run, rows: Write, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("grade", input=rows([_row(0, r"\boxed{1}", "1")]), **keys)


def test_a_file_without_a_usable_row_is_refused_with_the_reasons(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('no json\n{"question": "P?", "response": "1"}\n')
    with pytest.raises(ValueError, match="no row is left.*no_expected_answer"):
        run("grade", input=str(path))


def test_a_person_s_own_columns(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    own = [{"question": "P?", "response": r"\boxed{72}", "answer": "7 + 65 = 72\n#### 72", "mine": 1}]
    path.write_text("".join(json.dumps(row) + "\n" for row in own))
    ran = run("grade", input=str(path))
    assert ran.output[0]["is_correct"] and ran.output[0]["mine"] == 1
    assert lines(ran.folder / "output.jsonl") == ran.output


@pytest.mark.parametrize("stage", ["grade", "vote"])
def test_parts_of_another_grader_are_made_again(
    run: Run, rows: Write, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A run that was killed goes on after an update: its verdicts must not be of two graders."""
    given = rows([_row(number, r"It is \boxed{16}.", "16") for number in range(3)])

    def written() -> int:
        ran = run(stage, input=given, folder="out")
        (ran.folder / "_DONE").unlink()  # as before the end
        return (ran.folder / "output.jsonl").stat().st_mtime_ns

    first = written()
    assert written() == first, "what is there is taken up"
    monkeypatch.setattr("nemo_ext.grading.equal.grader_version", lambda: "rules-next")
    assert written() != first
