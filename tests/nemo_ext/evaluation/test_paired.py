"""Evaluations compared by problem, read from folders as stages leave them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.evaluation.contract import Contract
from nemo_ext.evaluation.paired import compare_all, compare_evaluations, evaluation_folders, read_evaluation, table
from nemo_ext.evaluation.problems import count_problems
from nemo_ext.evaluation.scores import scores_behind, write_scores
from nemo_ext.records.manifest import Facts
from nemo_ext.records.manifest import write as write_manifest
from tests.nemo_ext.evaluation.contracts import CONTRACT


def _folder(
    place: Path, model: str, right: dict[str, list[list[int]]], contract: Contract = CONTRACT, **more: Any
) -> Path:
    """right: benchmark -> per problem a 1 or 0 for each of its samples."""
    rows = [
        {
            "benchmark": name, "id": str(i), "problem": f"{name} {i}", "expected_answer": "1", "sample": s,
            "predicted_answer": str(good), "is_correct": good == 1, "finish_reason": "stop",
        } | more
        for name, problems in right.items()
        for i, samples in enumerate(problems)
        for s, good in enumerate(samples)
    ]  # fmt: skip
    place.mkdir(parents=True)
    (place / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_scores(place, model, contract, list(count_problems(rows)))
    return place


def test_greedy_answers_are_compared_problem_by_problem(tmp_path: Path) -> None:
    before = {"amc": [[1]] * 10 + [[0]] * 30, "aime": [[0]] * 30}
    after = {"amc": [[0]] * 2 + [[1]] * 20 + [[0]] * 18, "aime": [[0]] * 29 + [[1]]}
    first = read_evaluation(_folder(tmp_path / "a", "base", before))
    second = read_evaluation(_folder(tmp_path / "b", "tuned", after, replace(CONTRACT, model_hash="n")))
    found = compare_evaluations(first, second)
    assert (found["first"], found["second"], found["contract_differences"]) == ("base", "tuned", {})
    amc = found["benchmarks"]["amc"]
    assert (amc["problems"], amc["gained"], amc["lost"], amc["test"]) == (40, 12, 2, "exact McNemar")
    assert amc["p"] == pytest.approx(0.01294, abs=1e-5), "R: binom.test(2, 14)$p.value"
    assert amc["points"] == 25.0 and 0 < amc["low"] < 25 < amc["high"] < 50
    assert "tuned solves 20 of 40, 25.0 points more than base (10): 12 problems gained and 2 lost" in amc["words"]
    assert found["benchmarks"]["aime"]["p"] == 1.0
    (adjusted,) = compare_all(first, [second])
    assert adjusted["benchmarks"]["amc"]["p_holm"] == pytest.approx(2 * amc["p"])
    lines = table([adjusted]).splitlines()
    assert len(lines) == 3 and lines[1].split()[:5] == ["amc", "base", "25.0", "tuned", "50.0"]
    assert len({len(line) for line in lines}) == 1


def test_samples_are_averaged_and_problems_drawn(tmp_path: Path) -> None:
    contract = replace(CONTRACT, num_samples=4, temperature=0.7)
    first = read_evaluation(_folder(tmp_path / "a", "base", {"amc": [[1, 0, 0, 0]] * 30}, contract))
    second = read_evaluation(_folder(tmp_path / "b", "tuned", {"amc": [[1, 1, 0, 0]] * 24 + [[0] * 4] * 6}, contract))
    amc = compare_evaluations(first, second)["benchmarks"]["amc"]
    assert (amc["first"], amc["second"], amc["points"]) == (0.25, pytest.approx(0.4), pytest.approx(15))
    assert (amc["test"], amc["gained"], amc["lost"]) == ("paired bootstrap", 24, 6)
    assert amc["p"] < 0.01 and "averaged over their samples: +15.0 points (95 % interval +" in amc["words"]


def test_different_contracts_are_refused_or_told(tmp_path: Path) -> None:
    first = read_evaluation(_folder(tmp_path / "a", "base", {"amc": [[1]]}))
    other = replace(CONTRACT, prompt_hash="q", max_tokens=1)
    second = read_evaluation(_folder(tmp_path / "b", "tuned", {"amc": [[1]]}, other))
    with pytest.raises(ValueError, match=r"prompt_hash: 'p' against 'q'; max_tokens: 9 against 1"):
        compare_evaluations(first, second)
    found = compare_evaluations(first, second, allow_mismatch=True)
    assert found["contract_differences"] == {"prompt_hash": ["p", "q"], "max_tokens": [9, 1]}


def test_only_what_is_the_same_problem_is_compared(tmp_path: Path) -> None:
    first = read_evaluation(_folder(tmp_path / "a", "m", {"amc": [[1]] * 5, "mine": [[1]]}))
    second = read_evaluation(_folder(tmp_path / "b", "m", {"amc": [[0]] * 3, "yours": [[1]]}))
    found = compare_evaluations(first, second)
    assert list(found["benchmarks"]) == ["amc"]
    assert [found["benchmarks"]["amc"][key] for key in ("problems", "only_first", "only_second", "changed")] == [
        3,
        2,
        0,
        0,
    ]
    assert (found["first"], found["second"]) == ("m (a)", "m (b)")
    changed = read_evaluation(_folder(tmp_path / "c", "n", {"amc": [[0]] * 3}, expected_answer="2"))
    with pytest.raises(ValueError, match="no problem in common: of amc no id has the same text and answer in both"):
        compare_evaluations(first, changed)


def test_folders_that_are_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an evaluation: neither it nor a folder in it has scores.json"):
        evaluation_folders(tmp_path)
    for name in ("b", "a"):
        _folder(tmp_path / "run" / name, name, {"amc": [[1]]})
    assert evaluation_folders(tmp_path / "run") == [tmp_path / "run" / "a", tmp_path / "run" / "b"]
    assert evaluation_folders(tmp_path / "run" / "a") == [tmp_path / "run" / "a"]
    (tmp_path / "run" / "a" / "scores.json").write_text('{"model": "x"')
    with pytest.raises(ValueError, match=r"a/scores\.json: not the scores of an evaluation"):
        read_evaluation(tmp_path / "run" / "a")
    apart = _folder(tmp_path / "apart", "m", {"amc": [[1, 0], [1, 0]]})
    lines = (apart / "output.jsonl").read_text().splitlines(keepends=True)
    (apart / "output.jsonl").write_text("".join([lines[0], lines[2], lines[1], lines[3]]))
    with pytest.raises(ValueError, match="the samples of amc 0 lie apart"):
        read_evaluation(apart)


def test_the_scores_behind_rows_that_were_passed_on(tmp_path: Path) -> None:
    source = _folder(tmp_path / "a", "m", {"amc": [[1]]})
    judged = tmp_path / "judged"
    judged.mkdir()
    write_manifest(judged, "j", "judge_answers", "h", Facts(inputs=[source / "output.jsonl"]), 1.0)
    found = scores_behind(judged)
    assert found is not None and found["model"] == "m"
    assert scores_behind(tmp_path) is None


def test_problems_that_are_all_alike_give_no_certainty(tmp_path: Path) -> None:
    zeros, more = (_folder(tmp_path / name, name, {"amc": [[0]] * 10}) for name in ("a", "b"))
    found = compare_evaluations(read_evaluation(zeros), read_evaluation(more))["benchmarks"]["amc"]
    assert found["points"] == 0 and -20 < found["low"] < -10 and 10 < found["high"] < 20, (
        "ten problems without a gain or loss"
    )
    one = _folder(tmp_path / "one", "one", {"amc": [[1]]})
    found = compare_evaluations(read_evaluation(zeros), read_evaluation(one))["benchmarks"]["amc"]
    assert found["high"] == 100 and found["low"] < 0, "one problem gained is no evidence"


def test_words_agree_with_the_p_that_counts_all_comparisons(tmp_path: Path) -> None:
    first = read_evaluation(_folder(tmp_path / "a", "a", {"amc": [[0]] * 8 + [[1]] * 4}))
    other = read_evaluation(_folder(tmp_path / "b", "b", {"amc": [[1]] * 6 + [[0]] * 2 + [[1]] * 4}))
    [alone] = compare_all(first, [other])
    assert "p = 0.031, a difference at 0.05." in alone["benchmarks"]["amc"]["words"]
    words = compare_all(first, [other, other])[0]["benchmarks"]["amc"]["words"]
    assert words.endswith("Among 2 comparisons p = 0.062 (Holm): no evidence of a difference.")
