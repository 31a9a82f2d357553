"""Published layouts as curation takes them up: a problem and its solution, or a reason of its own."""

import json
from collections import Counter
from pathlib import Path

import pytest

from nemo_ext.prompts.prompt import Prompt
from nemo_ext.rows.batches import batches, parts
from nemo_ext.rows.outside.adopt import adopt
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.row import Row, content_id
from nemo_ext.rows.row_input import RowFiles
from nemo_ext.rows.usable import Unusable, usable_rows
from nemo_ext.samples.sft_rows import training_of

PROMPT = Prompt(name="p", template="chat", system="", user="{problem}")
USER, ANSWER = {"role": "user", "content": "P"}, {"role": "assistant", "content": "A"}
SYSTEM = {"role": "system", "content": "S"}
TOOL = {"type": "function", "function": {"name": "add"}}

LAYOUTS = [
    ({"problem": "P", "generated_solution": "A", "expected_answer": "1"}, "problem + generated_solution"),
    ({"question": "P", "generation": "A"}, "question + generation"),
    ({"query": "P", "response": "A", "type": "MATH_SV"}, "query + response"),
    ({"problem": "P", "solution": "A", "source": "x", "messages": [USER, ANSWER]}, "problem + solution"),
    ({"problem": "P", "solution": "short", "messages": [USER, ANSWER]}, "problem + messages"),
    ({"messages": [USER, ANSWER]}, "messages"),
    ({"messages": [{"role": "system", "content": ""}, USER, ANSWER]}, "messages"),
    ({"conversations": [{"from": "human", "value": "P"}, {"from": "gpt", "value": "A"}]}, "conversations"),
    ({"instruction": "P", "input": "", "output": "A"}, "instruction + input + output"),
    ({"instruction": "P", "output": "A"}, "instruction + output"),
    ({"instruction": "P", "context": "", "response": "A"}, "instruction + context + response"),
    ({"prompt": "P", "response": "A", "helpfulness": 3}, "prompt + response"),
    ({"prompt": [USER], "completion": [ANSWER]}, "prompt + completion"),
    ({"input": [USER], "output": "A", "category": "math", "reasoning": "on"}, "input + output"),
    ({"problem": "P", "solution": "A", "messages": []}, "problem + solution"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "layout"), LAYOUTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_question_with_one_answer_is_a_problem_with_its_solution(row: Row, layout: str) -> None:
    adopted = adopt(row)
    solution = adopted.row.get("generated_solution") or adopted.row["generation"]
    assert (adopted.layout, adopted.row["problem"], solution) == (layout, "P", "A")
    assert adopted.row["id"] == content_id("P")
    assert adopt(adopted.row).row == adopted.row, "a second time changes nothing"


@pytest.mark.parametrize(("row", "layout"), LAYOUTS, ids=lambda value: value if isinstance(value, str) else "")
def test_training_reads_the_same_of_a_row_before_and_after_curation(row: Row, layout: str) -> None:
    before, after = training_of(row, PROMPT), training_of(adopt(row).row, PROMPT)
    assert before.layout == layout and before.answer == after.answer
    assert (before.messages or [])[-1:] == (after.messages or [])[-1:] == [USER]


@pytest.mark.parametrize(("row", "layout"), LAYOUTS, ids=lambda value: value if isinstance(value, str) else "")
def test_training_takes_the_solution_that_a_filter_has_edited(row: Row, layout: str) -> None:
    edited = adopt(row).row | {"generated_solution": "cut"}
    assert training_of(edited, PROMPT).answer["content"] == "cut"


def test_system_and_tools_are_kept() -> None:
    row = adopt({"messages": [SYSTEM, USER, ANSWER], "tools": json.dumps([TOOL]), "mine": 1}).row
    assert row == {
        "id": content_id("P", "S", json.dumps([TOOL], separators=(",", ":"))), "problem": "P", "mine": 1, "generation": "A",
        "system": "S", "tools": [TOOL],
    }  # fmt: skip
    for columns in ({"system": "S"}, {"system_prompt": "S"}):
        row = adopt({"prompt": "P", "response": "A", "id": 7, **columns}).row
        assert row == {"id": 7, "problem": "P", "generation": "A", "system": "S"}
    both = adopt({"instruction": "Add.", "input": "1+1", "output": "A", "text": "### Add."}).row
    assert (both["problem"], both["generation"], both["text"]) == ("Add.\n\n1+1", "A", "### Add.")


def test_a_problem_s_dialogue_is_not_replaced_by_its_reference() -> None:
    row = {"problem": "P", "solution": r"\boxed{2}", "messages": [SYSTEM, USER, ANSWER]}
    adopted = adopt(row)
    assert adopted.layout == training_of(row, PROMPT).layout == "messages"
    assert {key: adopted.row[key] for key in ("problem", "generation", "system", "expected_answer")} == {
        "problem": "P", "generation": "A", "system": "S", "expected_answer": "2",
    }  # fmt: skip
    several = row | {"messages": [USER, ANSWER, USER, ANSWER]}
    with pytest.raises(BadRow, match="several_turns") as error:
        adopt(several)
    assert str(error.value.detail).endswith("columns={messages: null}")
    assert adopt(several, {"messages": None}).row["generation"] == r"\boxed{2}"
    assert adopt(several | {"generation": "W"}).row["generation"] == "W"


def test_the_known_answer_and_what_a_model_wrote_beside_a_conversation() -> None:
    row = adopt({"messages": [USER, ANSWER], "answer": 27.0, "source": "amc"}).row
    assert (row["expected_answer"], row["problem_source"]) == ("27", "amc")
    reference = {"role": "assistant", "content": r"\boxed{2}"}
    row = adopt({"messages": [USER, reference], "generation": "It is 3."}).row
    assert (row["generation"], row["expected_answer"]) == ("It is 3.", "2")


def test_an_answer_that_was_predicted_is_not_the_reference_s() -> None:
    for reference in ({"solution": r"\boxed{2}"}, {"answer": "1+1\n#### 2"}):
        row = adopt({"problem": "P", "predicted_answer": "3", **reference}).row
        assert (row.get("generation"), row["predicted_answer"], row["expected_answer"]) == (None, "3", "2")


def test_gsm8k_has_a_solution() -> None:
    row = adopt({"question": "P", "answer": "1+1 = <<1+1=2>>2\n#### 2"}).row
    assert (row["generation"], row["expected_answer"]) == ("1+1 = 2\nThe answer is \\boxed{2}.", "2")


CALL = {"role": "assistant", "content": None, "tool_calls": [TOOL]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER, ANSWER, USER, ANSWER]}, "several_turns"),
        ({"conversations": [{"from": who, "value": "x"} for who in ("human", "gpt") * 2]}, "several_turns"),
        ({"instruction": "P", "input": "", "output": "A", "history": [["P", "A"]]}, "several_turns"),
        ({"messages": [USER, CALL, {"role": "tool", "content": "2"}, ANSWER]}, "several_turns"),
        ({"messages": [USER, CALL]}, "message_parts"),
        ({"messages": [USER, ANSWER | {"reasoning_content": "Hm."}]}, "message_parts"),
        ({"messages": [SYSTEM, USER, ANSWER], "system": "T"}, "unshown_column"),
        ({"messages": [USER]}, "no_assistant_turn"),
        ({"messages": [ANSWER]}, "no_user_turn"),
        ({"messages": ["P", "A"]}, "no_text_messages"),
        ({"messages": [USER, ANSWER], "tools": "{"}, "bad_tools"),
        ({"input": "P", "output": "A"}, "plain_text"),
        ({"text": "All of it."}, "plain_text"),
        ({"prompt": "P", "chosen": "A", "rejected": "B"}, "no_problem"),
        ({}, "no_problem"),
    ],
)
def test_what_a_problem_and_a_solution_cannot_hold_has_its_own_reason(row: Row, reason: str) -> None:
    with pytest.raises(BadRow, match=f"^{reason}$"):
        adopt(row)


def read(files: RowFiles, layouts: Counter[str] | None = None) -> list[Row | Unusable]:
    return [row for part in parts(files) for batch in batches(part, 0) for row in usable_rows(batch, layouts)]


def test_columns_are_renamed_in_files_from_outside_alone(tmp_path: Path) -> None:
    row = {"id": 1, "ask": "P", "reply": "A", "problem": "other", "hint": "h"}
    outside, own = tmp_path / "rows.jsonl", tmp_path / "stage" / "output.jsonl"
    own.parent.mkdir()
    (own.parent / "manifest.json").touch()
    for path in (outside, own):
        path.write_text(json.dumps(row) + "\n")
    layouts: Counter[str] = Counter()
    columns = {"problem": "ask", "generation": "reply", "hint": None}
    assert read(RowFiles((outside, own), columns), layouts) == [{"id": 1, "problem": "P", "generation": "A"}, row]
    assert layouts == {"problem + generation": 1}


def test_a_dropped_row_says_which_columns_it_has(tmp_path: Path) -> None:
    (path := tmp_path / "rows.jsonl").write_text('{"query": "P", "n": 1}\n')
    (lost,) = read(RowFiles((path,), {"problem": "ask"}))
    assert isinstance(lost, Unusable) and lost.reason == "no column 'ask', which columns.problem names"
    assert lost.row == {"file": "rows.jsonl", "byte": 0, "query": "P", "n": 1, "detail": "it has query, n"}
