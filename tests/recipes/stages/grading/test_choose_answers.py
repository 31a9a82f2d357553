"""The choose_answers stage: one row per problem, scored under a contract that says how it was chosen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.grading.equal import equal
from tests.nemo_ext.interop.evaluation_folder import CONTRACT
from tests.nemo_ext.rows.solution_forms import in_every_form
from tests.recipes.conftest import Ran

Run = Callable[..., Ran]


def _evaluation(tmp_path: Path, problems: list[tuple[str, list[str | None], list[float | None]]]) -> str:
    """(expected answer, the samples' answers, their rewards) of each problem."""
    folder = tmp_path / "evaluate"
    folder.mkdir()
    rows = [
        {
            "benchmark": "aime24", "id": str(number), "problem": f"P{number}", "expected_answer": expected, "sample": sample,
            "seed": sample, "generation": f"\\boxed{{{answer}}}" if answer else "?", "predicted_answer": answer,
            "is_correct": equal(answer, expected), "verdicts": {"symbolic": equal(answer, expected)}, "finish_reason": "stop",
            "num_prompt_tokens": 1, "num_generated_tokens": 2, "reward": rewards[sample],
        }
        for number, (expected, answers, rewards) in enumerate(problems)
        for sample, answer in enumerate(answers)
    ]  # fmt: skip
    (folder / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {"model": "m", "step": 7, "contract": CONTRACT, "num_samples": len(problems[0][1]), "benchmarks": {}}
    (folder / "scores.json").write_text(json.dumps(scores))
    return str(folder)


SAMPLES: list[tuple[str, list[str | None], list[float | None]]] = [
    ("0.5", ["2", "1/2", None, "\\frac{1}{2}"], [3.0, 0.5, 9.0, 0.5]),
    ("7", ["8", "8", "7", "8"], [0.1, 0.1, 2.0, 0.1]),
    ("9", [None, None, None, None], [1.0, 1.0, 1.0, 1.0]),
]


def test_majority(run: Run, tmp_path: Path) -> None:
    ran = run("choose_answers", input=_evaluation(tmp_path, SAMPLES))
    assert [(row["sample"], row["seed"], row["is_correct"], row["votes"]) for row in ran.output] == [
        (0, 1, True, 2), (0, 0, False, 3), (0, 0, False, 0),
    ]  # fmt: skip
    assert ran.output[1]["share"] == 0.75 and ran.output[1]["num_samples"] == 4
    assert ran.manifest["figures"]["without_answer"] == 1 and ran.manifest["rows_out"] == 3
    scores = json.loads((ran.folder / "scores.json").read_text())
    assert scores["benchmarks"]["aime24"]["correct"] == 1 and scores["benchmarks"]["aime24"]["total"] == 3
    assert scores["contract"]["search"] == "majority@all" and scores["step"] == 7


@pytest.mark.parametrize(
    ("choosing", "correct", "search"),
    [
        ({"method": "best_of_n"}, [False, True, False], "best_of_n@all"),
        ({"method": "weighted"}, [False, True, False], "weighted@all"),
        ({"method": "weighted", "k": 2, "reward_weight": "exp"}, [False, False, False], "weighted@2 (reward_weight=exp)"),
        ({"k": 1}, [False, False, False], "majority@1"),
    ],
)  # fmt: skip
def test_other_methods(run: Run, tmp_path: Path, choosing: dict[str, Any], correct: list[bool], search: str) -> None:
    ran = run("choose_answers", input=_evaluation(tmp_path, SAMPLES), choosing=choosing)
    assert [row["is_correct"] for row in ran.output] == correct
    assert json.loads((ran.folder / "scores.json").read_text())["contract"]["search"] == search


def test_numinas_rule_grades_remainders(run: Run, tmp_path: Path) -> None:
    """1052 and 52 are one answer; nothing to vote for is 0."""
    problems: Any = [("2052", ["1052", "52", "3.5"], [None] * 3), ("0", [None, "x", "-4"], [None] * 3)]
    rule = {"integers": True, "modulus": 1000, "non_negative": True, "default": "0", "window_chars": 100}
    ran = run("choose_answers", input=_evaluation(tmp_path, problems), rule=rule)
    assert [(row["predicted_answer"], row["is_correct"], row["votes"]) for row in ran.output] == [
        ("52", True, 2),
        ("0", True, 0),
    ]
    contract = json.loads((ran.folder / "scores.json").read_text())["contract"]
    assert contract["grader"] == "integer_mod_1000" and "modulus=1000" in contract["search"]


def test_what_lacks_rewards_or_samples_says_which_problem(run: Run, tmp_path: Path) -> None:
    source = _evaluation(tmp_path, [("1", ["1", "1"], [None, None])])
    with pytest.raises(ValueError, match="aime24: problem 0: choosing.method=best_of_n needs rewards"):
        run("choose_answers", input=source, choosing={"method": "best_of_n"})
    with pytest.raises(ValueError, match=r"aime24: problem 0: 2 samples, and choosing\.k=64"):
        run("choose_answers", input=source, choosing={"k": 64})


def test_rows_that_are_no_evaluation_are_refused(run: Run, rows: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"has no scores\.json behind it"):
        run("choose_answers", input=rows([{"benchmark": "b", "id": "1", "problem": "p"}]))


def test_workers_change_nothing(run: Run, tmp_path: Path) -> None:
    source = _evaluation(tmp_path, SAMPLES * 50)
    one, two = (run("choose_answers", folder=f"w{n}", input=source, workers=n) for n in (1, 2))
    assert one.output == two.output and len(one.output) == 150


def _lines(folder: str) -> tuple[Path, list[str]]:
    file = Path(folder) / "output.jsonl"
    return file, file.read_text().splitlines(keepends=True)


def test_samples_that_lie_apart_are_no_problems_of_their_own(run: Run, tmp_path: Path) -> None:
    file, lines = _lines(_evaluation(tmp_path, SAMPLES))
    file.write_text("".join([*lines[1:], lines[0]]))
    with pytest.raises(ValueError, match="the samples of aime24 0 lie apart.*rescore it"):
        run("choose_answers", input=str(file.parent))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"reward": 3.0', '"reward": "good"', "aime24: problem 0: the reward of sample 0 is not a number: 'good'"),
        ('"reward": 3.0', '"reward": NaN', r"output\.jsonl:1: not a JSON object"),
        (
            '"predicted_answer"',
            '"answer"',
            "a row has no predicted_answer, so it is not an evaluation's.*recipe=rescore",
        ),
    ],
)
def test_what_no_vote_can_be_taken_of(run: Run, tmp_path: Path, old: str, new: str, message: str) -> None:
    file, lines = _lines(_evaluation(tmp_path, SAMPLES))
    file.write_text("".join(lines).replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        run("choose_answers", input=str(file.parent), choosing={"method": "best_of_n"})


@in_every_form
def test_a_solution_in_another_column(run: Run, tmp_path: Path, form: Callable[..., Any]) -> None:
    """A rule with a window reads the texts, not the answers that were read of them."""
    file, lines = _lines(_evaluation(tmp_path, SAMPLES))
    rule = {"window_chars": 5}
    plain = run("choose_answers", "plain", input=str(file.parent), rule=rule)
    file.write_text("".join(json.dumps(form(json.loads(line))) + "\n" for line in lines))
    ran = run("choose_answers", "other", input=str(file.parent), rule=rule)
    keys = ("predicted_answer", "votes", "is_correct", "seed")
    assert [[row[key] for key in keys] for row in ran.output] == [[row[key] for key in keys] for row in plain.output]
