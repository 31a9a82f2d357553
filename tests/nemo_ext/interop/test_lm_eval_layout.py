"""Files as lm-evaluation-harness writes them; the keys are those of 0.4.13's own."""

import hashlib
import json
import math
from datetime import datetime
from pathlib import Path

import pytest

from nemo_ext.interop.lm_eval import sanitised, write_lm_eval
from tests.nemo_ext.interop.evaluation_folder import rows, scores
from tests.nemo_ext.rows.solution_forms import in_every_form

TIME = datetime(2026, 11, 21, 9, 5, 3, 250)
RESULTS = {
    "results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config", "git_hash", "date",
    "lm_eval_version", "task_hashes", "model_source", "model_name", "model_name_sanitized", "chat_template_sha",
}  # fmt: skip
SAMPLE = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash", "exact_match",
}  # fmt: skip


def test_files_and_keys(tmp_path: Path) -> None:
    written = write_lm_eval(tmp_path, rows(), scores(), TIME, "1f2e")
    names = [f"{name}_2026-11-21T09-05-03.000250" for name in ("samples_gsm8k", "samples_amc23", "results")]
    assert [path.stem for path in written] == names
    assert {path.parent for path in written} == {tmp_path / "nvidia__my__model"}
    results = json.loads(written[-1].read_text())
    assert set(results) == RESULTS | {"contract"}
    assert results["n-samples"] == {"gsm8k": {"original": 3, "effective": 3}, "amc23": {"original": 2, "effective": 2}}
    assert results["configs"]["gsm8k"]["generation_kwargs"]["temperature"] == 0.7
    lines = [json.loads(line) for line in written[0].read_text().splitlines()]
    assert [set(line) for line in lines] == [SAMPLE] * 3
    assert [line["doc_id"] for line in lines] == [0, 1, 2]


def test_a_problem_is_one_line_with_all_its_samples(tmp_path: Path) -> None:
    path = write_lm_eval(tmp_path, rows(), scores(), TIME, "1f2e")[0]
    line = json.loads(path.read_text().splitlines()[1])
    assert line["doc"] == {
        "benchmark": "gsm8k",
        "id": "1",
        "problem": "What is 1 + 1? π",
        "expected_answer": "2",
        "level": 3,
    }
    assert line["resps"] == [["It is \\boxed{2}.", "It is \\boxed{3}."]] and line["filtered_resps"] == ["2", "3"]
    assert line["exact_match"] == 0.5
    assert line["target_hash"] == hashlib.sha256(b"2").hexdigest()


def test_the_standard_error_is_the_harness_own(tmp_path: Path) -> None:
    """The sample's standard error: 2 of 3 problems solved has a mean of 2/3 and sqrt(2/9 * 3/2 / 3)."""
    greedy = [row | {"is_correct": row["id"] != "0"} for row in rows(1)]
    path = write_lm_eval(tmp_path, greedy, scores(1), TIME, "1f2e")[-1]
    found = json.loads(path.read_text())["results"]["gsm8k"]
    assert found["exact_match,boxed"] == pytest.approx(2 / 3)
    assert found["exact_match_stderr,boxed"] == pytest.approx(math.sqrt(2 / 9 * 3 / 2 / 3))


def test_rows_out_of_order_are_refused_before_results_exist(tmp_path: Path) -> None:
    shuffled = [*rows()[:2], *rows()[6:], *rows()[2:6]]
    with pytest.raises(ValueError, match="the rows of gsm8k are in two places"):
        write_lm_eval(tmp_path, shuffled, scores(), TIME, "1f2e")
    assert not list(tmp_path.rglob("results_*"))


@pytest.mark.parametrize(
    ("name", "folder"), [("a/b c", "a__b__c"), ("Llama-3.1_8B", "Llama-3.1_8B"), ("../x", "..__x")]
)
def test_a_model_is_a_folder(name: str, folder: str) -> None:
    assert sanitised(name) == folder


@in_every_form
def test_a_solution_in_another_column(tmp_path: Path, form) -> None:
    def written(folder: Path, made: list[dict]) -> list[dict]:
        paths = write_lm_eval(folder, made, scores(), TIME, "abc")
        return [json.loads(line) for path in paths[:-1] for line in path.read_text().splitlines()]

    assert written(tmp_path / "a", [form(row) for row in rows()]) == written(tmp_path / "b", rows())
