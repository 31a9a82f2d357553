"""+recipe=grade, vote and judge_answers on a person's own, hostile file: one command each."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launchers.planning import plan
from nemo_ext.rows.row import MAX_ROW_BYTES
from tests.composing import compose_recipe
from tests.nemo_ext.serving.faulty_server import Server, servers
from tests.recipes.conftest import lines

Finish = Callable[..., str]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers(1) as (started,):
        yield started


def _own_rows() -> list[dict[str, Any]]:
    """12 problems, samples of a problem far apart."""
    given = [
        {
            "question": f"What is {i} + {i}?",
            "response": rf"\boxed{{{text.format(2 * i)}}}",
            "answer": f"{2 * i}.0",
            "mine": i,
        }
        for text in ("{}", "0{}", "{} dollars", "7{}")
        for i in range(12)
    ]
    return [*given, {"question": "Q?", "response": r"\boxed{10^{10^{10}}}", "answer": "10^{10^{11}}"}]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Good rows among a cut line, NUL bytes, bytes that are no UTF-8, a row of 10 MB, deep nesting, and rows that lack things."""
    good = [json.dumps(row).encode() for row in _own_rows()]
    bad = [
        b'{"question": "cut',
        b"\x00\x00\x00",
        b'{"question": "\xff\xfe?", "response": "x", "answer": "1"}',
        b'{"question": "long?", "response": "' + b"x" * (MAX_ROW_BYTES + 1) + b'", "answer": "1"}',
        b'{"question": "deep?", "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"[1, 2]",
        b'{"response": "x", "answer": "1"}',
        b"",
        b'{"question": "braces?", "response": "\\\\boxed{' + b"{" * 10_000 + b'", "answer": "1"}',
    ]
    path = tmp_path / "hostile.jsonl"
    path.write_bytes(b"\n".join([*good[:20], *bad, *good[20:]]) + b'\n{"question": "the end is cu')
    return path


def _reasons(folder: Path) -> Counter[str]:
    return Counter(row["reason"] for row in lines(folder / "dropped.jsonl"))


def test_grade_then_judge(finish: Finish, server: Server, hostile: Path, tmp_path: Path) -> None:
    said = finish("+recipe=grade", f"input={hostile}", "stages.grade.also=[integer,math_verify]")
    folder = tmp_path / "grade" / "grade"
    output = lines(folder / "output.jsonl")
    assert len(output) == 50, "49 good ones and the one with braces"
    verdicts = [row["verdict"] for row in output]
    assert Counter(verdicts) == {"equal": 36, "different": 13, "undecided": 1}
    reasons = _reasons(folder)
    assert reasons["row_too_long"] == 1 and reasons["no_problem"] == 1 and reasons.total() == 8
    assert reasons["malformed_json"] == 6
    assert all(set(row["graded_by"]) == {"default", "integer", "math_verify"} for row in output)
    figures = json.loads((folder / "manifest.json").read_text())["figures"]
    assert figures["correct"] == 36 and figures["undecided"] == 1
    assert "malformed_json" in said

    asked = ["server=external", f"server.urls=[{server.url}/v1]"]
    said = finish("+recipe=judge_answers", f"input={folder}", *asked)
    judged = lines(tmp_path / "judge_answers" / "judge_answers" / "output.jsonl")
    assert len(judged) == 50
    assert [row for row in judged if "judge_replies" not in row] == [
        row for row in output if row["verdict"] != "undecided"
    ]
    # this server's replies are no verdicts, so what was undecided stays so
    (open_row,) = [row for row in judged if "judge_replies" in row]
    assert open_row["verdict"] == "undecided" and len(open_row["judge_replies"]) == 2


def test_vote(finish: Finish, hostile: Path, tmp_path: Path) -> None:
    limits = ["stages.vote.min_votes=3", "stages.vote.min_share=0.5"]
    finish("+recipe=vote", f"input={hostile}", *limits)
    folder = tmp_path / "vote" / "vote"
    output = lines(folder / "output.jsonl")
    assert len(output) == 48
    for row in output:
        assert (row["majority_votes"], row["total_votes"], row["vote_share"]) == (3, 4, 0.75)
        assert row["expected_answer"] == str(2 * row["mine"])
    reasons = _reasons(folder)
    assert reasons["few_votes"] == 2 and reasons["malformed_json"] == 6 and reasons["row_too_long"] == 1


def test_rows_in_other_columns_of_a_folder_of_splits(finish: Finish, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [{"ask": f"What is {i}?", "told": rf"\boxed{{{i}}}", "known": str(i), "other": "7"} for i in range(3)]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [f"input={folder}", "split=test"]
    named = "columns={problem: ask, generation: told, expected_answer: known}"
    finish("+recipe=grade", *given, named)
    assert [row["is_correct"] for row in lines(tmp_path / "grade" / "grade" / "output.jsonl")] == [True] * 3
    assert "grade" in finish("+recipe=grade", *given, named)
    said = finish("+recipe=grade", *given, named.replace("known", "othr"), "run_name=wrong", code=1)
    assert "has 'othr'. They have ask, known, other, told" in said and "Traceback" not in said
    finish("+recipe=grade", *given, named.replace("known", "other"), "redo=true")
    assert [row["is_correct"] for row in lines(tmp_path / "grade" / "grade" / "output.jsonl")] == [False] * 3


def test_a_wrong_word_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"stages\.grade\.grader: got 'best', choose one of default"):
        plan.resolve(compose_recipe("grade", "stages.grade.grader=best"), Path("runs/x"))
