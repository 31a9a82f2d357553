"""Leaderboard, comparisons, levels, checkpoints and published scores of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.evaluation.contract import Contract
from nemo_ext.evaluation.published import all_published, published_scores, why_not_comparable
from nemo_ext.evaluation.scores import count_files, write_scores
from nemo_ext.report import score_sections
from nemo_ext.report.run_folder import scores
from tests.nemo_ext.interop.evaluation_folder import CONTRACT

GREEDY = CONTRACT | {"num_samples": 1, "temperature": 0.0, "stop": [], "seeds": [0]}


def _evaluate(root: Path, model: str, correct: list[bool], step: int | None = None, **contract: Any) -> Path:
    """A finished evaluation of one benchmark of levels 1 and 2, and of another with two problems."""
    folder = root / model
    folder.mkdir(parents=True)
    rows = [
        {"benchmark": benchmark, "id": str(i), "problem": f"P{i}", "expected_answer": "1", "level": 1 + i % 2, "sample": 0,
         "predicted_answer": "1" if right else "2", "is_correct": right, "finish_reason": "stop", "generation": "g"}
        for benchmark, answers in (("gsm8k", correct), ("aime24", [True, False]))
        for i, right in enumerate(answers)
    ]  # fmt: skip
    (folder / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    terms = Contract.from_dict(GREEDY | {"model_hash": model} | contract)
    write_scores(folder, model, terms, count_files([folder / "output.jsonl"]), step)
    return folder


def _found(root: Path, **folders: Path) -> dict[str, dict[str, Any]]:
    return scores({f"evaluate/{name}": folder for name, folder in folders.items()})


@pytest.fixture
def found(tmp_path: Path) -> dict[str, dict[str, Any]]:
    made = {
        "base": _evaluate(tmp_path, "base", [False] * 20),
        "c1": _evaluate(tmp_path, "checkpoint_1", [True] * 10 + [False] * 10, step=100),
        "c2": _evaluate(tmp_path, "checkpoint_2", [True] * 12 + [False] * 8, step=200),
        "average": _evaluate(tmp_path, "average", [True] * 14 + [False] * 6),
        "teacher": _evaluate(tmp_path, "teacher", [True] * 15 + [False] * 5, max_tokens=7),
    }
    return _found(tmp_path, **made)


def test_the_leaderboard_counts_each_problem_once(found: dict[str, dict[str, Any]]) -> None:
    board = score_sections.leaderboard(found)
    assert board is not None and board["benchmarks"] == ["gsm8k", "aime24"]
    assert [row["model"] for row in board["rows"]] == ["average", "checkpoint_2", "checkpoint_1", "base", "teacher"]
    assert [row["apart"] for row in board["rows"]] == ["", "", "", "", "max_tokens"], "other terms, no place"
    assert board["rows"][0]["accuracy"] == pytest.approx(15 / 22), "not the mean of 70 % and 50 %"
    assert board["rows"][0]["low"] < 15 / 22 < board["rows"][0]["high"]
    assert score_sections.leaderboard({"base": found["base"]}) is None


def test_comparisons_are_with_the_average_and_name_what_forbids_them(found: dict[str, dict[str, Any]]) -> None:
    compared = score_sections.comparisons(found)
    assert compared is not None and compared["first"] == "average"
    assert [row["second"] for row in compared["rows"]] == ["base", "checkpoint_2"], "the last checkpoint alone"
    assert compared["refused"] == [{"model": "teacher", "terms": "max_tokens"}]
    base = compared["rows"][0]["benchmarks"]["gsm8k"]
    assert (base["gained"], base["lost"]) == (0, 14) and base["p"] == pytest.approx(2 / 2**14)
    allowed = score_sections.comparisons(found, allow_mismatch=True)
    assert allowed is not None and not allowed["refused"] and len(allowed["rows"]) == 3


def test_terms_that_are_to_differ_are_named_without_calling_for_the_same_ones(tmp_path: Path) -> None:
    folders = {
        "words": _evaluate(tmp_path, "words", [True, False]),
        "code": _evaluate(tmp_path, "code", [True, True], search="tools"),
        "more": _evaluate(tmp_path, "more", [True, True], search="tools"),
    }
    shown = _found(tmp_path, **folders)
    (first, *_) = score_sections.contract_notes(shown)
    assert first.endswith("Evaluate both alike.")
    notes = score_sections.contract_notes(shown, allow_mismatch=True)
    assert notes == ["code and words were scored under different terms: search: 'tools' against 'none'."]


def test_levels(found: dict[str, dict[str, Any]]) -> None:
    panels = score_sections.breakdown(found)
    assert {(panel["benchmark"], panel["kind"]) for panel in panels} == {("gsm8k", "level"), ("aime24", "level")}
    assert list(panels[0]["models"]) == ["base", "average", "teacher"]
    assert [value["accuracy"] for value in panels[0]["models"]["average"]] == [0.7, 0.7]


def test_checkpoints_say_how_many_cannot_be_told_from_the_best(found: dict[str, dict[str, Any]]) -> None:
    shown = score_sections.checkpoints(found)
    assert shown is not None and [point["step"] for point in shown["points"]] == [100, 200]
    assert (shown["best"], shown["alike"]) == (200, 1) and shown["average"]["problems"] == 22
    assert [point["against"] and point["against"]["points"] for point in shown["points"]] == [
        pytest.approx(-200 / 22),
        None,
    ]
    del found["checkpoint_1"]
    assert score_sections.checkpoints(found) is None


def test_checkpoints_are_told_apart_by_the_problems_that_they_share(tmp_path: Path) -> None:
    """Ten more of two hundred, and none lost: no two intervals say so. What was asked in another way is not compared."""
    right = {100: 95, 200: 105, 300: 104}
    made = {
        f"c{step}": _evaluate(tmp_path, f"checkpoint_{step}", [i < n for i in range(200)], step)
        for step, n in right.items()
    }
    made["other"] = _evaluate(tmp_path, "checkpoint_4", [False] * 200, 400, max_tokens=7)
    shown = score_sections.checkpoints(_found(tmp_path, **made))
    assert shown is not None and (shown["best"], shown["alike"]) == (200, 1)
    first, best, close, other = shown["points"]
    assert first["high"] > best["accuracy"] and first["against"]["p_holm"] == pytest.approx(2 * 2 / 2**10)
    assert close["against"]["p_holm"] == 1.0 and best["against"] is None and other["against"] is None


def test_a_model_scored_twice_is_told_by_its_stage(tmp_path: Path) -> None:
    first, second = _evaluate(tmp_path / "a", "m", [True] * 3), _evaluate(tmp_path / "b", "m", [False] * 3)
    assert set(scores({"evaluate": first, "choose": second})) == {"m", "m (choose)"}


def test_problems_count_alike_however_many_samples_they_have() -> None:
    uneven = {
        "problems": 2,
        "correct": 5,
        "total": 6,
        "accuracy": 0.5,
        "low": 0.2,
        "high": 0.7,
    }  # all of five, none of one
    alone = score_sections.overall({"benchmarks": {"amc23": uneven}})
    assert (alone["accuracy"], alone["low"], alone["high"]) == (0.5, 0.2, 0.7), "as the table below has it"
    both = score_sections.overall({"benchmarks": {"amc23": uneven, "aime24": uneven}})
    assert both["accuracy"] == 0.5 and both["problems"] == 4


def test_early_finish_is_said_of_the_samples_and_not_of_the_vote(tmp_path: Path) -> None:
    sampled = _evaluate(tmp_path, "sampled", [True] * 3, search="early finish", num_samples=4)
    voted = _evaluate(tmp_path, "voted", [True] * 3, search="early finish, majority@all", num_samples=4)
    found = _found(tmp_path, sampled=sampled, voted=voted)
    found["sampled"]["num_samples"] = 4
    [note] = score_sections.early_finish_notes(found)
    assert note.startswith("sampled: 5 of 20 samples were drawn, without those that could change no majority")


def test_published_scores_stand_beside_ours_with_what_keeps_them_apart(found: dict[str, dict[str, Any]]) -> None:
    rows = score_sections.published(found, ["OpenMath2-Llama3.1-8B (NeMo-Skills)"])
    by = {(row["benchmark"], row["grader"]): row for row in rows}
    assert by["gsm8k", "symbolic"]["apart"] == ["20 problems here, 1,319 there"]
    assert by["gsm8k", "judge"]["apart"][-1] == "graded by symbolic here, by judge there"
    assert by["math", "symbolic"]["apart"] == ["not evaluated here"] and by["math", "symbolic"]["ours"] is None
    assert score_sections.published({}, ["OpenMath2-Llama3.1-8B"])[0]["ours"] is None


def test_only_scores_made_alike_are_comparable() -> None:
    [published] = [each for each in all_published() if each.model == "NuminaMath-7B-TIR" and each.benchmark == "amc23"]
    searched = Contract.from_dict(GREEDY | {"search": "majority@64", "num_samples": 64, "temperature": 0.8})
    assert why_not_comparable(published, searched, {"problems": 40, "total": 40}) == ["its grader is not known"]
    greedy = Contract.from_dict(GREEDY)
    assert "greedy here, majority@64 there" in why_not_comparable(published, greedy, {"problems": 40, "total": 40})


def test_every_published_score_is_a_share_of_its_problems() -> None:
    for each in all_published():
        assert 0 < each.score < 100 and each.source
        off = abs(each.score * each.problems / 100 - round(each.score * each.problems / 100))
        assert off <= 0.06 * each.problems / 100 + 0.01, f"{each} is not a whole number of problems, rounded"
        assert each.interval[0] < each.score < each.interval[1]


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no published scores of 'GPT'; published_scores\.yaml has OpenMath2"):
        published_scores(["GPT"])
