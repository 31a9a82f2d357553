"""The filter stage: steps, workers, kills, a person's own file, and the preview."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recipes.stages.curation import filter as stage
from tests.recipes.conftest import lines

GOOD = {"predicted_answer": "4", "is_correct": True, "finish_reason": "stop", "problem_source": "math"}


def solved(row_id: str, text: str, **more: Any) -> dict[str, Any]:
    return {"id": row_id, "problem": f"P{row_id}", "generation": text, **GOOD, **more}


STEPS = [
    {"name": name}
    for name in ("truncated", "incorrect", "multiple_boxes", "trim_after_answer", "incorrect_arithmetic")
] + [{"name": "solution_too_long", "params": {"max_tokens": 30}}]
DATA = [
    solved("1", " 2 + 2 = 4. \\boxed{4}.\nAnd so on."),
    solved("2", r"2 + 2 = 5. \boxed{4}."),
    solved("3", r"\boxed{4} \boxed{4}"),
    solved("4", r"\boxed{5}", predicted_answer="5", is_correct=False),
    solved("5", "none", predicted_answer=None, is_correct=False),
    solved("6", r"\boxed{4}", finish_reason="length"),
    solved("7", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 " + r"\boxed{4}"),
]


def test_each_row_leaves_with_its_reason(run, rows, model) -> None:
    ran = run("filter", input=rows(DATA), steps=STEPS, model=model)
    assert [row["generated_solution"] for row in ran.output] == [r"2 + 2 = 4. \boxed{4}."]
    assert ran.output[0]["generation"] == DATA[0]["generation"]
    assert ran.reasons == [
        "incorrect_arithmetic",
        "multiple_boxes",
        "incorrect",
        "no_answer",
        "truncated",
        "solution_too_long",
    ]
    assert ran.manifest["rows_in"] == 7 and ran.manifest["dropped"] == dict(Counter(ran.reasons))
    assert ran.manifest["figures"]["texts_tokenised"] == 1, "of the two that came so far, one was settled by its bytes"


def test_what_cannot_work_is_refused(run, rows, model) -> None:
    with pytest.raises(ValueError, match=r"stages\.bad\.steps: .*'incorect'"):
        run("filter", input="x", steps=[{"name": "incorect"}], model=model, folder="bad")
    with pytest.raises(ValueError, match=r"stages\.none\.steps is empty"):
        run("filter", input="x", model=model, folder="none")
    with pytest.raises(ValueError, match=r"preview=-1; it must be 0"):
        run("filter", input="x", steps=STEPS, model=model, preview=-1, folder="less")
    with pytest.raises(ValueError, match="no row is left"):
        run("filter", input=rows(DATA[1:2]), steps=STEPS, model=model, folder="empty")
    own = [{"problem": "p", "generation": "s"}]
    with pytest.raises(ValueError, match=r"step truncated needs the column finish_reason.*\+recipe=generate input="):
        run("filter", input=rows(own), steps=STEPS, model=model, folder="columns")


def test_same_bytes_with_one_worker_and_two(run, rows, model) -> None:
    many = [row | {"id": f"{row['id']}-{i}", "problem": f"{row['problem']} {i}"} for i in range(600) for row in DATA]
    source = rows(many)
    one, two = (run("filter", input=source, steps=STEPS, model=model, workers=n, folder=f"w{n}") for n in (1, 2))
    for name in ("output.jsonl", "dropped.jsonl"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    assert len(one.output) == 600


def test_no_tokenizer_is_loaded_where_nothing_is_counted(run, rows) -> None:
    nowhere = {"name": "none", "hf_path": "/no/such/folder", "context_length": 9}
    steps = [{"name": "no_box"}, {"name": "solution_too_long", "params": {"max_tokens": None, "max_chars": 100}}]
    assert len(run("filter", input=rows(DATA[:1]), steps=steps, model=nowhere).output) == 1
    counted = {"problem_too_long": {"max_tokens": 3}, "solution_too_short": {"min_tokens": 3}, "problem_too_short": {}}
    assert [stage.counts_tokens(step) for step in stage.steps_of(stage.Config(steps=[
        stage.FilterStep(name=name, params=params) for name, params in counted.items()]))] == [True, True, False]  # fmt: skip


def test_a_file_as_people_have_them(run, tmp_path: Path, model) -> None:
    """Cut lines, NUL bytes, bytes that are no UTF-8, very long rows, deep nesting: a reason each, and the rest goes on."""
    good = {"question": "What is 2 + 2?", "solution": r"It is \boxed{4}.", "mine": [1]}
    deep = b'{"problem": "p", "generation": "s", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    written = [
        json.dumps(good).encode(),
        json.dumps(good).encode()[:30],
        b'{"problem": "a\x00b", "generation": "s"}',
        json.dumps({"problem": "a\x00b", "generation": r"\boxed{1}"}).encode(),
        b'{"problem": "\xff\xfe", "generation": "s"}',
        json.dumps({"problem": "p", "generation": "x" * (10 << 20)}).encode(),
        deep,
        json.dumps({"problem": "p", "generation": "{" * 10_000}).encode(),
        json.dumps({"problem": "p", "generation": ["no", "text"]}).encode(),
        json.dumps({"problem": None, "generation": "s"}).encode(),
        b"",
        b"[1, 2]",
        json.dumps(good | {"question": "again"}).encode(),
        json.dumps(good)[:-20].encode(),
    ]
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\n".join(written))
    steps = [{"name": "control_characters"}, {"name": "no_box"}]
    ran = run("filter", input=str(path), steps=steps, model=model)
    assert [(row["problem"], row["mine"]) for row in ran.output] == [("What is 2 + 2?", [1]), ("again", [1])]
    reasons = Counter(ran.reasons)
    assert reasons.pop("malformed_json") >= 4
    assert reasons == {"control_characters": 1, "row_too_long": 1, "no_box": 1, "no_solution": 1, "no_problem": 1}


def test_preview_says_what_each_step_would_drop_and_writes_no_rows(run, rows, model, tmp_path: Path) -> None:
    steps = [*STEPS, {"name": "solution_too_short", "params": {"min_chars": 20}}]
    with pytest.raises(FileNotFoundError, match=r"output\.jsonl"):  # the fixture reads what a stage writes
        run(
            "filter",
            input=rows([*DATA, {"id": "8", "problem": "p", "generation": 3}]),
            steps=steps,
            model=model,
            preview=100,
        )
    folder = tmp_path / "out"
    assert not list(folder.glob("*.jsonl"))
    text = (folder / "preview.txt").read_text()
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 100
    told = json.loads((folder / "preview.json").read_text())
    assert (told["rows"], told["kept"], told["unusable"]) == (8, 1, {"no_solution": 1})
    alone = {each["step"]: (each["alone"], each["in_order"]) for each in told["steps"]}
    assert alone == {
        "truncated": (1, 1), "incorrect": (2, 2), "multiple_boxes": (1, 1), "trim_after_answer": (1, 1),
        "incorrect_arithmetic": (1, 1), "solution_too_long": (1, 1), "solution_too_short": (4, 0),
    }  # fmt: skip
    assert "2: 2 + 2 = 5" in text and "cut: And so on." in text and "4: incorrect: 5 instead of None" in text
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rows_out"] is None and text.strip() in manifest["figures"]["preview"]


def test_the_first_rows_are_enough_for_a_preview(run, rows, model) -> None:
    source = rows(DATA * 300)
    files = [Path(source) / "output.jsonl"]
    assert [row["id"] for row in stage.first_rows(files, 9)] == [row["id"] for row in [*DATA, *DATA[:2]]]
    assert len(lines(files[0])) == 2100
