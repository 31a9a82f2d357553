"""Published layouts, each as its card shows it, and what of a row would be left out without a word."""

import pytest

from nemo_ext.prompts.prompt import Prompt
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.samples.sft_rows import Training, training_of

PROMPT = Prompt(name="p", template="chat", system="", user="Solve.\n\n{problem}")
ASKED = [{"role": "system", "content": ""}, {"role": "user", "content": "Solve.\n\nP"}]
USER, ANSWER = {"role": "user", "content": "P"}, {"role": "assistant", "content": "A"}
SYSTEM = {"role": "system", "content": "S"}


def read(row: dict, prompt: Prompt | None = PROMPT) -> tuple[str, list | None, str]:
    made = training_of(row, prompt)
    return made.layout, made.messages, made.answer["content"]


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        ({"problem": "P", "generated_solution": "A", "expected_answer": "1"}, "problem + generated_solution"),
        ({"question": "P", "generated_solution": "A", "is_correct": True}, "question + generated_solution"),
        ({"problem": "P", "generation": "A", "generated_solution": None}, "problem + generation"),
        ({"problem": "P", "solution": "A", "source": "x", "messages": [USER, ANSWER]}, "problem + solution"),
        ({"problem": "P", "solution": "short", "messages": [USER, ANSWER]}, "problem + messages"),
        ({"problem": "P", "solution": "A", "answer": "1", "problem_type": "Algebra"}, "problem + solution"),
        ({"query": "P", "response": "A", "type": "MATH_SV", "original_question": "?"}, "query + response"),
        ({"problem": "P", "solution": "A", "text": "anything"}, "problem + solution"),
    ],
)
def test_problems_are_asked_as_evaluation_asks_them(row: dict, layout: str) -> None:
    assert read(row) == (layout, ASKED, "A")


@pytest.mark.parametrize(
    ("row", "layout", "messages"),
    [
        ({"messages": [SYSTEM, USER, ANSWER], "problem": "P", "solution": "x"}, "messages", [SYSTEM, USER]),
        ({"messages": [USER, ANSWER, USER, ANSWER]}, "messages", [USER, ANSWER, USER]),
        ({"messages": [USER, ANSWER], "system": "S"}, "messages + system", [SYSTEM, USER]),
        ({"conversations": [{"from": "human", "value": "P"}, {"from": "gpt", "value": "A"}]}, "conversations", [USER]),
        (
            {"conversations": [{"from": "User", "value": "P"}, {"from": "Assistant", "value": "A"}], "system": "S",
             "mask": "User", "type": "VALUE_TO_TEXT"},
            "conversations + system", [SYSTEM, USER],
        ),
        ({"instruction": "P", "input": "", "output": "A"}, "instruction + input + output", [USER]),
        (
            {"instruction": "Add.", "input": "1+1", "output": "A", "system": "S"},
            "instruction + input + output + system", [SYSTEM, {"role": "user", "content": "Add.\n\n1+1"}],
        ),
        ({"instruction": "P", "context": "", "response": "A", "category": "qa"}, "instruction + context + response", [USER]),
        (
            {"instruction": "P", "input": "", "output": "A", "text": "### Instruction: P\n### Response: A"},
            "instruction + input + output", [USER],
        ),
        (
            {"instruction": "P", "input": "", "output": "A", "history": [["P", "A"]]},
            "instruction + input + output + history", [USER, ANSWER, USER],
        ),
        ({"input": "P", "output": "A", "system": "S"}, "input + output + system", [SYSTEM, USER]),
        ({"input": "P", "output": "A", "system": None}, "input + output", [USER]),
        (
            {"input": [USER], "output": "A", "category": "math", "license": "cc", "reasoning": "on", "generator": "G",
             "used_in_training": "yes", "version": "v1", "system_prompt": "S"},
            "input + output + system_prompt", [SYSTEM, USER],
        ),
        ({"prompt": "P", "response": "A", "helpfulness": 3, "verbosity": 1}, "prompt + response", [USER]),
        ({"prompt": [USER], "completion": [ANSWER]}, "prompt + completion", [USER]),
    ],
)  # fmt: skip
def test_conversations_under_other_names(row: dict, layout: str, messages: list) -> None:
    assert read(row) == (layout, messages, "A")


def test_plain_texts_are_taken_as_they_are() -> None:
    assert training_of({"text": "All"}, PROMPT) == Training("text", {"content": "All"}, is_whole=True)
    made = training_of({"input": "I", "output": "A", "id": "3", "source": "s", "problem": "I"}, PROMPT)
    assert (made.layout, made.prompt, made.messages) == ("input + output, plain text", "I", None)
    assert read({"messages": [USER, ANSWER], "problem": "P", "solution": "A"}, prompt=None)[0] == "messages"


def test_tools_reach_the_template() -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    for tools in ([tool], '[{"type": "function", "function": {"name": "add"}}]'):
        made = training_of({"messages": [USER, ANSWER], "tools": tools}, PROMPT)
        assert (made.tools, made.layout) == ([tool], "messages + tools")
    assert training_of({"messages": [USER, ANSWER], "tools": "[]"}, PROMPT).tools is None
    call = {"role": "assistant", "content": None, "tool_calls": [tool]}
    assert training_of({"messages": [USER, call]}, PROMPT).answer == call


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"input": "I", "output": "A", "hint": "Divide first."}, "unshown_column"),
        ({"instruction": "P", "input": "", "output": "A", "hint": "Divide first."}, "unshown_column"),
        ({"problem": "P", "solution": "A", "instruction": "In French."}, "unshown_column"),
        ({"problem": "P", "generation": "A", "reasoning_content": "Hm."}, "unshown_column"),
        ({"text": "T", "system": "S"}, "unshown_column"),
        ({"messages": [USER, ANSWER], "context": "Given."}, "unshown_column"),
        ({"messages": [ANSWER]}, "no_user_turn"),
        ({"messages": [SYSTEM, ANSWER]}, "no_user_turn"),
        ({"messages": [USER, ANSWER], "tools": "{"}, "bad_tools"),
        ({"messages": [USER, ANSWER], "tools": {"a": 1}}, "bad_tools"),
        ({"conversations": [{"from": "narrator", "value": "P"}]}, "unknown_role"),
        ({"conversations": ["P", "A"]}, "no_text_messages"),
        ({"instruction": "P", "output": "A", "history": ["P"]}, "no_text_messages"),
        ({"prompt": "P", "response": ""}, "no_assistant_turn"),
        ({"prompt": "P", "chosen": "A", "rejected": "B"}, "no_problem"),
        ({"problem": "P"}, "no_solution"),
        ({}, "no_problem"),
    ],
)
def test_what_cannot_be_trained_whole_is_dropped(row: dict, reason: str) -> None:
    with pytest.raises(BadRow, match=f"^{reason}$"):
        training_of(row, PROMPT)


def test_a_prompt_s_own_columns_are_shown_and_needed() -> None:
    prompt = Prompt(name="p", template="base", user="{context}\n{problem}")
    assert training_of({"problem": "P", "solution": "A", "context": "C"}, prompt).prompt == "C\nP"
    with pytest.raises(BadRow, match="missing_context") as error:
        training_of({"problem": "P", "solution": "A"}, prompt)
    assert error.value.detail == "prompt p needs it; the row has problem, solution"
