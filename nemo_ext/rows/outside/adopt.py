r"""Rows from outside under the pipeline's names: problem, generation, expected_answer, problem_source, id.

    adopt({"query": "1+1?", "response": "\\boxed{2}"})
    -> Adopted({"id": "c5a9...", "problem": "1+1?", "generation": "\\boxed{2}", ...}, layout="query + response")

A question with one answer is a problem with its solution, whatever columns hold it: messages and conversations of one turn,
prompt and response, instruction and output. What a problem and a solution cannot hold has a reason of its own to be dropped.
"""

from typing import Any, NamedTuple

from nemo_ext.rows.exact_json import dumps
from nemo_ext.rows.outside.columns import BadRow, Columns, renamed
from nemo_ext.rows.outside.conversations import SYSTEM, Conversation, conversation_of, single_turn
from nemo_ext.rows.outside.known_shapes import (
    FINAL,
    REFERENCES,
    SOLUTIONS,
    answer_text,
    problem_column,
    reference_answer,
    solution_column,
    solution_of,
    text_of,
)
from nemo_ext.rows.row import Row, content_id, written_solution

WRITTEN = ("generated_solution", "generation")
"""The solutions that a model, or a stage here, wrote; texts elsewhere in the row do not replace them."""


class Adopted(NamedTuple):
    """A row, and the names of the columns that its problem and solution were taken from."""

    row: Row
    layout: str


def adopt(raw: Row, columns: Columns | None = None) -> Adopted:
    r"""A person's own row, so that a curation stage can take it up; other keys are kept.

    `problem` (or question, query, or what a conversation of one turn asks), `generation` where the row has a solution,
    `expected_answer` (or answer; of GSM8K's answer, what follows ####; else the box of `solution`), problem_source (or
    source) and `id`, its own or a hash of what is asked, so that samples of a problem share it. A conversation's columns
    become `problem`, `generation`, `system` and `tools`.

    Args:
        columns: what a column is here -> its name in the row.

    Raises:
        BadRow: no_problem; of conversations several_turns, message_parts, unshown_column, or as `conversation_of`;
            plain_text; a column that `columns` names is not there.
    """
    row = renamed(raw, columns) if columns else raw
    column = problem_column(row)
    if column is not None and not is_dialogue(row):
        return _of_problem(row, column)
    conversation = conversation_of(row)
    if conversation is not None:
        return _of_conversation(row, conversation)
    if text_of(row.get("text")) or (text_of(row.get("input")) and "output" in row):
        raise BadRow(
            "plain_text",
            "text, or input and output, that are trained as they are. Where they are a question and its answer: "
            "columns={problem: input, generation: output}",
        )
    raise BadRow("no_problem", f"it has {', '.join(row)}")


def is_dialogue(row: Row) -> bool:
    """Whether a row's messages are more than a problem and its answer, and are what it teaches: they have a system turn,
    tools or further turns, and no solution was written beside them."""
    if not row.get("messages") or written_solution(row) is not None:
        return False
    turn = single_turn(row["messages"])
    return turn is None or bool(turn.system) or bool(row.get("tools"))


def messages_answer(row: Row) -> str | None:
    """The answer of a problem's messages, where the row has no other text that a model wrote: OpenR1's is not that of its
    `solution`, which is the reference. None: the row's solution is in a column of its own."""
    if not row.get("messages") or is_dialogue(row) or written_solution(row) is not None:
        return None
    turn, column = single_turn(row["messages"]), problem_column(row)
    if turn is None or column is None or not turn.answer.strip():
        return None
    return turn.answer if row[column].strip() in turn.question else None


def _of_problem(raw: Row, column: str) -> Adopted:
    problem: str = raw[column]
    row: Row = {"id": _id(raw, problem.strip()), "problem": problem}
    row |= {key: value for key, value in raw.items() if key not in ("id", "problem", column)}
    solution, text = _solution(raw)
    if solution is not None and not isinstance(row.get("generation"), str):
        row["generation"] = text
    return Adopted(_finished(row), f"{column} + {solution}" if solution else column)


def _solution(row: Row) -> tuple[str | None, str]:
    """(which column holds the row's solution, its text); (None, "") where there is none.

    A reference is the solution where nothing else was given: an answer that somebody predicted is not the reference's.
    """
    if row.get("generated_solution") is not None and not isinstance(row["generated_solution"], str):
        return None, ""
    column = next((key for key in SOLUTIONS if isinstance(row.get(key), str)), None)
    if (answer := messages_answer(row)) is not None and (column is None or answer.strip() != row[column].strip()):
        return "messages", answer
    if column is None and solution_column(row) == "answer":
        column = "answer"
    if column is None or (column in (*REFERENCES, "answer") and row.get("predicted_answer") is not None):
        return None, ""
    return column, solution_of(row) if column == "answer" else row[column]


def _of_conversation(raw: Row, conversation: Conversation) -> Adopted:
    turn = single_turn(conversation.messages)
    if turn is None:
        roles = [message.get("role") for message in conversation.messages if message.get("role") != "system"]
        if roles == ["user", "assistant"]:
            raise BadRow("message_parts", "a message has more than a text: tool calls, reasoning, or a name")
        raise BadRow(
            "several_turns",
            f"{len(roles)} turns, and a problem with its solution has a question and an answer. Where the row has both in "
            f"columns of their own: columns={{{conversation.columns[0]}: null}}",
        )
    kept = {key: value for key, value in raw.items() if key not in (*conversation.columns, "id", "problem")}
    for key in SYSTEM:
        if text_of(kept.pop(key, None)) not in ("", turn.system.strip()):
            raise BadRow("unshown_column", f"{key}: the messages have another system turn")
    tools = {"tools": conversation.tools} if conversation.tools else {}
    told = [turn.system] * bool(turn.system) + [dumps(conversation.tools).decode()] * bool(tools)
    row: Row = {"id": _id(raw, turn.question.strip(), *told), "problem": turn.question, **kept}
    written = written_solution(row)
    row |= {"generation": turn.answer if written is None else written}
    if written is not None and not text_of(row.get("solution")):
        row["solution"] = turn.answer
    row |= ({"system": turn.system} if turn.system else {}) | tools
    return Adopted(_finished(row), " + ".join(conversation.columns))


def _id(raw: Row, *asked: str) -> Any:
    return raw["id"] if raw.get("id") not in (None, "") else content_id(*asked)


def _finished(row: Row) -> Row:
    """The row with the known answer and the source under their names."""
    if "expected_answer" not in row and "answer" in row:
        row["expected_answer"] = _final_answer(row.pop("answer"))
    if row.get("expected_answer") is None and (answer := reference_answer(row)):
        row["expected_answer"] = answer
    if row.get("problem_source") is None and text_of(row.get("source")):
        row["problem_source"] = row["source"]
    return row


def _final_answer(answer: Any) -> str | None:
    found = FINAL.search(answer) if isinstance(answer, str) else None
    return found[1].replace(",", "") if found else answer_text(answer) or None
