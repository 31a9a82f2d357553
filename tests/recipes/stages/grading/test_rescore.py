"""rescore: rows of evaluations, of judges and of other tools under other graders; what was known of them stays known."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.evaluation.contract import Contract, compare
from nemo_ext.records import manifest
from nemo_ext.records.manifest import Facts
from tests.conftest import ROOT
from tests.nemo_ext.evaluation.contracts import contract
from tests.recipes.conftest import Ran, lines, write_config

CUT = """
import os, signal, sys
from itertools import islice
from pathlib import Path
from nemo_ext.rows.part_files import PartWriter
from recipes import run_stage

write = PartWriter.write

def pieces(given):
    yield from islice(given, 2)
    os.killpg(0, signal.SIGKILL)

PartWriter.write = lambda writer, given: write(writer, pieces(given))
run_stage.run(Path(sys.argv[1]))
"""
"""Runs a stage, and kills it and its workers when two batches have been written."""
Run = Callable[..., Ran]
CONTRACT = contract(grader_version="old", num_samples=2, temperature=0.7)
ANSWERS = {"1": ("0.5", r"\frac12", "0.5"), "2": ("7", "7.0", "8"), "3": ("-1", "999", "-1"), "4": ("x", None, None)}


def _scores(ran: Ran) -> dict[str, Any]:
    return json.loads((ran.folder / "scores.json").read_text())


def _evaluation(folder: Path, **more: Any) -> Path:
    """Two samples of each problem, as evaluate leaves them."""
    rows = []
    for problem, (expected, *samples) in ANSWERS.items():
        for sample, answer in enumerate(samples):
            text = "I do not know." if answer is None else rf"It is \boxed{{{answer}}}. The answer is: 5"
            rows.append({
                "id": problem, "problem": f"P{problem}", "expected_answer": expected, "benchmark": "toy", "level": int(problem),
                "sample": sample, "seed": 11 * sample, "generation": text, "predicted_answer": answer, "is_correct": False,
                "verdicts": {"other": True}, "finish_reason": "stop", "num_prompt_tokens": 1, "num_generated_tokens": 2,
            })  # fmt: skip
    folder.mkdir()
    (folder / "output.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
    scores = {"model": "average", "step": 40, "contract": CONTRACT.to_dict(), "num_samples": 2, "benchmarks": {}}
    (folder / "scores.json").write_text(json.dumps(scores))
    manifest.write(folder, "evaluate", "evaluate", "h", Facts(), 1.0)
    return folder


def test_an_evaluation_under_three_graders(run: Run, tmp_path: Path) -> None:
    source = _evaluation(tmp_path / "in")
    ran = run("rescore", input=str(source), graders=["symbolic", "hendrycks", "numina"])
    given = lines(source / "output.jsonl")
    assert [row["verdicts"] for row in ran.output] == [
        {"symbolic": True, "hendrycks": True, "numina": None},  # hendrycks takes 0.5 for 1/2; numina can't say
        {"symbolic": True, "hendrycks": True, "numina": True},
        {"symbolic": True, "hendrycks": False, "numina": True},
        {"symbolic": False, "hendrycks": False, "numina": False},
        {"symbolic": False, "hendrycks": False, "numina": True},  # 999 is -1 modulo 1000
        {"symbolic": True, "hendrycks": True, "numina": True},
        *[{"symbolic": False, "hendrycks": False, "numina": False}] * 2,
    ]
    kept = ("id", "sample", "seed", "generation", "predicted_answer", "level", "num_generated_tokens")
    assert [[row[key] for key in kept] for row in ran.output] == [[row[key] for key in kept] for row in given]
    scores = _scores(ran)
    assert (scores["model"], scores["step"], scores["num_samples"]) == ("average", 40, 2)
    toy = scores["benchmarks"]["toy"]
    assert (toy["problems"], toy["total"], toy["correct"], toy["no_answer"]) == (4, 8, 4, 2)
    assert toy["verdicts"] == {"symbolic": 0.5, "hendrycks": 0.375, "numina": 0.5, "both": 0.25, "either": 0.625}
    assert toy["by"]["level"]["3"]["accuracy"] == 0.5
    figures = ran.manifest["figures"]
    assert figures["symbolic - hendrycks"] == "+12.50 points (1 and 0 of 8 samples by one alone)"


def test_the_contract_is_the_evaluations_but_for_the_grader(run: Run, tmp_path: Path) -> None:
    source = str(_evaluation(tmp_path / "in"))
    same = Contract.from_dict(_scores(run("rescore", "same", input=source))["contract"])
    assert set(compare(CONTRACT, same, allow_mismatch=True)) == {"grader_version"}
    other = run("rescore", "other", input=source, graders=["hendrycks"], extractor="the_answer_is")
    found = compare(same, Contract.from_dict(_scores(other)["contract"]), allow_mismatch=True)
    assert found == {"grader": ("symbolic", "hendrycks"), "extractor": ("boxed", "the_answer_is")}
    assert {row["predicted_answer"] for row in other.output if "boxed" in row["generation"]} == {"5"}


def test_a_grader_with_an_extractor_of_its_own(run: Run, tmp_path: Path) -> None:
    source = _evaluation(tmp_path / "in", expected_answer="5")
    ran = run("rescore", input=str(source), graders=["symbolic", "metamath", "integer@the_answer_is"])
    assert ran.output[0]["verdicts"] == {"symbolic": False, "metamath": True, "integer@the_answer_is": True}
    assert ran.output[0]["predicted_answer"] == r"\frac12", "the deciding grader's"


def test_scoring_again_what_was_scored_again(run: Run, tmp_path: Path) -> None:
    source = _evaluation(tmp_path / "in")
    first = run("rescore", "first", input=str(source), graders=["symbolic"])
    second = run("rescore", "second", input=str(first.folder), graders=["symbolic"])
    assert second.output == first.output and _scores(second) == _scores(first)


def test_a_judge_beside_the_rules(run: Run, tmp_path: Path) -> None:
    """Rows of a judge_answers stage: asked and agreed, asked in vain, and not asked because the rules had decided."""
    source = _evaluation(tmp_path / "in")
    judged = []
    for i, row in enumerate(lines(source / "output.jsonl")):
        replies = {2: ["True", "yes"], 3: ["True", "False"], 4: ["no", "False."]}.get(i)
        row["is_correct"] = i in (0, 1, 2, 5)
        judged.append(row | ({"judge_replies": replies} if replies else {}))
    folder = tmp_path / "judged"
    folder.mkdir()
    (folder / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    facts = Facts(inputs=[source / "output.jsonl"], models={"big": "f"}, prompts={"judge": "h"})
    manifest.write(folder, "judge_answers", "judge_answers", "h", facts, 1.0)
    ran = run("rescore", input=str(folder), graders=["hendrycks"], decides="judge")
    said = [row["verdicts"]["judge"] for row in ran.output]
    assert said == [True, True, True, None, False, True, False, False]
    assert [row["is_correct"] for row in ran.output] == [each is True for each in said]
    assert (ran.output[2]["verdicts"]["hendrycks"], ran.output[2]["verdict"]) == (False, "different")
    contract = _scores(ran)["contract"]
    assert contract["grader"] == "judge" and "big" in contract["grader_version"] and contract["prompt_hash"] == "p"
    later = run("rescore", "later", input=str(ran.folder), graders=["symbolic"])
    assert [row["verdicts"]["judge"] for row in later.output] == said, "a judge is not asked again"


def test_files_of_another_tool_seed_after_seed(run: Run, tmp_path: Path) -> None:
    """NeMo-Skills' layout: a file per seed, no ids, no benchmark; one problem has no answer, one row no text."""
    folder = tmp_path / "skills"
    folder.mkdir()
    for seed in range(3):
        rows = [
            {
                "problem": f"P{i}",
                "expected_answer": str(i),
                "generation": rf"\boxed{{{i if i < seed else 9}}}",
                "symbolic_correct": 1,
            }
            for i in range(3)
        ]
        rows += [
            {"problem": "open", "expected_answer": None, "generation": "x"},
            {"problem": "P7", "expected_answer": "7"},
        ]
        (folder / f"output-rs{seed}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = run("rescore", input=str(folder / "output-rs*.jsonl"), benchmark="amc", model="mine")
    by_problem = {i: [row for row in ran.output if row["problem"] == f"P{i}"] for i in range(3)}
    assert [[row["is_correct"] for row in by_problem[i]] for i in range(3)] == [
        [False, True, True],
        [False, False, True],
        [False] * 3,
    ]
    assert all(
        [row["sample"] for row in rows] == [0, 1, 2] and rows[0]["benchmark"] == "amc" for rows in by_problem.values()
    )
    assert sorted(ran.reasons) == ["no_expected_answer"] * 3 + ["no_generation"] * 3
    scores = _scores(ran)
    assert (scores["model"], scores["num_samples"], scores["contract"]["num_samples"]) == ("mine", 3, 3)
    assert scores["contract"]["prompt_hash"] is None, "nobody knows what these were asked"
    amc = scores["benchmarks"]["amc"]
    assert amc["accuracy"] == pytest.approx(1 / 3) and amc["metrics"]["pass@3"]["value"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"graders": ["symbolic", "symbolic"]}, "each once"),
        ({"graders": ["judge"]}, "not 'judge'"),
        ({"graders": ["hendrycks@end"]}, "extractor: got 'end'"),
        ({"decides": "numina"}, r"decides='numina'; it may be judge or one of \['symbolic'"),
        ({"shards": 2}, "this stage is not split"),
        ({"timeout_s": 0}, "timeout_s is above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(run: Run, tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run("rescore", input=str(tmp_path), **keys)


def test_several_evaluations_are_not_taken_for_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "evaluate").mkdir()
    for name in ("average", "base"):
        _evaluation(tmp_path / "evaluate" / name)
    with pytest.raises(ValueError, match=r"several evaluations; give one of them: .*\{average,base\}"):
        run("rescore", input=str(tmp_path / "evaluate"))


def test_real_answers_are_graded_as_their_authors_graded_them(run: Run, rows: Any, shared_data: Path) -> None:
    given, theirs = [], []
    for i, line in enumerate((shared_data / "gsm8k_model_solutions.jsonl").read_text().splitlines()[:300]):
        row = json.loads(line)
        expected = row["ground_truth"].rsplit("A: ", 1)[1]
        for name in ("6b_finetuning", "175b_verification"):
            text = row[name]["solution"].replace("\nA: ", "\n#### ")
            given.append({"id": i, "problem": row["question"], "expected_answer": expected, "generation": text})
            theirs.append(row[name]["is_correct"])
    ran = run("rescore", input=rows(given), extractor="hash", benchmark="gsm8k")
    ours = [row["is_correct"] for row in ran.output]
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) <= 2
    assert _scores(ran)["benchmarks"]["gsm8k"]["samples"] == 600


def test_a_killed_run_is_taken_up_and_ends_the_same(run: Run, rows: Any, tmp_path: Path) -> None:
    given = [
        {
            "id": str(i // 8),
            "problem": f"P{i // 8}",
            "expected_answer": str(i // 8 % 13),
            "generation": rf"{'x' * 3_000} \boxed{{{i % 17}}}",
        }
        for i in range(1_000)
    ]
    source = rows(given)
    whole = run("rescore", "whole", input=source, benchmark="toy", workers=1)
    path = write_config(tmp_path / "cut", "rescore", {"input": source, "benchmark": "toy", "workers": 2})
    argv = [sys.executable, "-c", CUT, str(path)]
    ended = subprocess.run(argv, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert list(path.parent.glob(".output*.tmp")) and not (path.parent / "scores.json").exists()
    again = run("rescore", "cut", input=source, benchmark="toy", workers=1)
    assert (again.folder / "output.jsonl").read_bytes() == (whole.folder / "output.jsonl").read_bytes()
    assert _scores(again)["benchmarks"] == _scores(whole)["benchmarks"]
    assert not list(again.folder.glob(".*.tmp"))
