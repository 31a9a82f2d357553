"""The vote stage: its columns, thresholds and weights, samples anywhere in the files, kills."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.conftest import Ran

Run = Callable[..., Ran]
Write = Callable[[list[dict[str, Any]]], str]


def _samples(problem: int, answers: list[str | None], **more: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for index, answer in enumerate(answers):
        text = "no answer" if answer is None else rf"It is \boxed{{{answer}}}."
        row = {"id": str(problem), "problem": f"P{problem}?", "sample_index": index, "generation": text}
        rows.append(row | {key: values[index] for key, values in more.items()})
    return rows


def _votes(ran: Ran) -> list[tuple[Any, ...]]:
    keys = ("id", "expected_answer", "majority_votes", "total_votes", "vote_share")
    return list(dict.fromkeys(tuple(row[key] for key in keys) for row in ran.output))


def test_exact_is_the_paper_s(run: Run, rows: Write) -> None:
    given = _samples(0, ["1", "2", "2", None]) + _samples(1, ["3", "4"]) + _samples(2, [None, None])
    ran = run("vote", input=rows(given))
    assert _votes(ran) == [("0", "2", 2, 4, 0.5), ("1", "3", 1, 2, 0.5), ("2", None, 0, 2, 0.0)]
    assert [row["is_correct"] for row in ran.output] == [False, True, True, False, True, False, False, False]
    assert ran.manifest["figures"] == {"answered": 2, "unanswered": 1, "layouts": {"problem + generation": 8}}


def test_equivalent_answers_vote_together(run: Run, rows: Write) -> None:
    ran = run("vote", input=rows(_samples(0, ["3", "3", "0.5", r"\frac{1}{2}", "1/2"])), mode="equivalent")
    assert _votes(ran) == [("0", "0.5", 3, 5, 0.6)]
    assert [row["is_correct"] for row in ran.output] == [False, False, True, True, True]


def test_limits_drop_whole_problems_with_a_reason(run: Run, rows: Write) -> None:
    given = _samples(0, ["1", "1", "1", "2"]) + _samples(1, ["1", "2", "3", "4"]) + _samples(2, ["5", None])
    ran = run("vote", input=rows(given), min_share=0.5, min_votes=2)
    assert {row["id"] for row in ran.output} == {"0"}
    assert [(row["id"], row["reason"]) for row in ran.dropped] == [("1", "few_votes")] * 4 + [("2", "few_votes")] * 2
    again = run("vote", "again", input=rows(given), min_share=0.5)
    assert Counter(again.reasons) == {"low_vote_share": 4} and {row["id"] for row in again.output} == {"0", "2"}


def test_weights(run: Run, rows: Write) -> None:
    given = _samples(0, ["1", "2", "2"], reward_score=[0.9, 0.2, 0.1])
    bad = _samples(1, ["1", "2", "3", "4", "5", "6"], reward_score=[None, "1", True, -1, 1, 2])
    ran = run("vote", input=rows([*given, *bad]), weight_by="reward_score")
    assert _votes(ran) == [("0", "1", 1, 3, 0.75), ("1", "6", 1, 2, 0.666667)]
    assert ran.reasons == ["bad_weight"] * 4


def test_samples_may_lie_anywhere(run: Run, tmp_path: Path) -> None:
    """As NeMo-Skills writes them: a file per seed, the problems in each."""
    folder = tmp_path / "seeds"
    folder.mkdir()
    given = [_samples(problem, [str(problem), str(problem), "9"]) for problem in range(5)]
    for seed in range(3):
        text = "".join(json.dumps(samples[seed]) + "\n" for samples in given)
        (folder / f"output-rs{seed}.jsonl").write_text(text)
    ran = run("vote", input=str(folder))
    assert _votes(ran) == [(str(problem), str(problem), 2, 3, 0.666667) for problem in range(5)]
    assert not (ran.folder / "grouped").exists()


def test_the_result_does_not_depend_on_workers(run: Run, rows: Write) -> None:
    given = [row for i in range(60) for row in _samples(i, [rf"\log 10^{{{i % 3}}}", str(i % 3), "7", str(i % 3)])]
    folder = rows(given)
    one, four = (run("vote", f"out{n}", input=folder, workers=n, mode="equivalent") for n in (1, 4))
    assert (one.folder / "output.jsonl").read_bytes() == (four.folder / "output.jsonl").read_bytes()
    assert one.output[0]["majority_votes"] == 3


def test_a_problem_is_told_by_id_and_text(run: Run, rows: Write) -> None:
    given = [_samples(0, ["1", "1"]), [row | {"problem": "Other?"} for row in _samples(0, ["2", "2", "2"])]]
    ran = run("vote", input=rows(given[0] + given[1]))
    assert _votes(ran) == [("0", "1", 2, 2, 1.0), ("0", "2", 3, 3, 1.0)]


def test_rows_without_a_solution_do_not_vote(run: Run, rows: Write) -> None:
    given = [*_samples(0, ["1", "2"]), {"id": "0", "problem": "P0?", "generation": None}]
    given.append({"id": "0", "problem": "P0?", "predicted_answer": "2"})
    ran = run("vote", input=rows(given))
    assert _votes(ran) == [("0", "2", 2, 3, 0.666667)] and ran.reasons == ["no_generation"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "fuzzy"}, "stages.out.mode='fuzzy'; it may be one of"),
        ({"extractor": "x"}, "stages.out.extractor='x'"),
        ({"min_share": 1.5}, "min_share is from 0 to 1"),
        ({"min_votes": -1}, "min_votes=-1"),
    ],
)
def test_settings_are_checked(run: Run, rows: Write, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("vote", input=rows(_samples(0, ["1"])), **keys)
