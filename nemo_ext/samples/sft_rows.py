"""The text that a row of any known layout trains: a conversation's last turn, an answer to a problem, or a text as it is.

    training_of({"problem": "1+1?", "solution": "2"}, prompt)
    -> Training(messages=[system, user], answer={"role": "assistant", "content": "2"}, layout="problem + solution")

A row may fit several layouts; which one it was read as is in `layout`, by the names of the columns that are used. A column
that would tell the model something and that nothing shows makes a row unusable: trained without it, it would teach something
else than its author meant.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nemo_ext.prompts.prompt import Prompt, render, required_keys
from nemo_ext.rows.outside.adopt import WRITTEN, is_dialogue, messages_answer
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.outside.conversations import SYSTEM, Conversation, Message, conversation_of, tools_of
from nemo_ext.rows.outside.known_shapes import normalise, problem_column, solution_column, solution_of, text_of
from nemo_ext.rows.row import Row

DIRECTING = (*SYSTEM, "instruction", "context", "history", "tools", "functions", "reasoning_content", "thinking")
"""Columns that say what to do, or hold part of the answer."""
_ABOUT = (
    "id uuid idx index source problem_source data_source dataset category type task domain subject topic level difficulty "
    "license language lang split subset url version generator model generation_model expected_answer answer "
    "predicted_answer label finish_reason verdict grade_method hash date author used_in_training benchmark states_task "
    "noise solution_of problem_type"
)
ABOUT = frozenset(_ABOUT.split())
"""Columns that say where a row comes from or how it was judged, and are not for the model."""
SWITCHES = {"reasoning": ("on", "off")}
"""Columns that are about the row where they have one of these values: Nemotron's, whose system prompt says it, too."""
EMPTY = ("[]", "{}", "null")  # of lists and mappings that a file holds as JSON


@dataclass(frozen=True)
class Training:
    """What is shown, and what is trained after it."""

    layout: str
    answer: Message
    """The last message; for a row of plain text, its `content` alone."""
    messages: list[Message] | None = None
    """None: plain text, for which no chat template is needed."""
    tools: list[Any] | None = None
    prompt: str = ""
    """Plain text before the answer; "" where all of the text is trained."""
    is_whole: bool = False
    """The answer is a text of its own, which nothing goes before."""
    data: list[Any] = field(default_factory=list)
    """What of it the row said: texts, and lists and mappings of them."""

    def texts(self) -> Iterator[str]:
        """Every text that the row brought, the answer's included."""
        return _texts([*self.data, self.answer])


def training_of(row: Row, prompt: Prompt | None) -> Training:
    """What the row trains.

    Raises:
        BadRow: the reason it is dropped under: no_problem, no_solution, no_output, unshown_column, ...
        ValueError: it has a problem, and there is no prompt.
    """
    given = {key: value for key, value in row.items() if value is not None}  # parquet gives every row every column
    if _is_problem(given, prompt):
        return _of_problem(given, prompt)
    pair = isinstance(given.get("input"), str) and "output" in given
    conversation = conversation_of(row)  # a system column may be there and empty
    if conversation is not None:
        return _of_conversation(given, conversation)
    if pair or (isinstance(given.get("input"), str) and problem_column(given) is None):
        return _of_pair(given)
    if "text" in given and problem_column(given) is None:
        _refuse_unshown(given, {"text"}, DIRECTING)
        answer = {"content": _required(given, "text")}
        return Training("text", answer, is_whole=True)
    return _of_problem(given, prompt)


def _is_problem(row: Row, prompt: Prompt | None) -> bool:
    """A problem with its solution is asked as evaluation asks it, also where the same is there as messages; texts made ready
    for training, and conversations of several turns, are taken as they are."""
    column = solution_column(row)
    if problem_column(row) is None or column in (None, "output"):
        return False
    if column in WRITTEN:  # a stage may have edited it, and not the other columns
        return True
    return not _ready(row) and ("messages" not in row or (prompt is not None and not is_dialogue(row)))


def _ready(row: Row) -> bool:
    return (isinstance(row.get("input"), str) or bool(row.get("instruction"))) and "output" in row


def _of_problem(row: Row, prompt: Prompt | None) -> Training:
    normal = normalise(row, source="", require_answer=False)
    column, solution = solution_column(row), solution_of(row)
    if (answered := messages_answer(row)) is not None:
        column, solution = ("messages" if answered.strip() != solution else column), answered
    if column is None or not solution:
        raise BadRow("no_solution")
    if prompt is None:
        raise ValueError("prompt is not set, and rows with a problem need one")
    keys = required_keys(prompt)
    system, tools = _system_column(row, prompt), tools_of(row.get("tools")) if prompt.template == "chat" else None
    beside = [key for key in (system, "tools" if tools else None) if key]
    _refuse_unshown(row, {*keys, column, *beside}, DIRECTING)
    lacking = next((key for key in sorted(keys) if normal.get(key) is None), None)
    if lacking is not None:
        raise BadRow(f"missing_{lacking}", f"prompt {prompt.name} needs it; the row has {', '.join(row)}")
    rendered, answer = render(prompt, normal), {"role": "assistant", "content": solution}
    layout = " + ".join([str(problem_column(row)), column, *beside])
    data = [normal[key] for key in keys]
    if isinstance(rendered, str):
        return Training(layout, answer, prompt=rendered, data=data)
    messages: list[Message] = [each for each in rendered if not system or each["role"] != "system"]
    if system:
        messages.insert(0, {"role": "system", "content": row[system]})
    return Training(layout, answer, messages, tools, data=[*data, *(row[key] for key in beside)])


def _system_column(row: Row, prompt: Prompt) -> str | None:
    """The column whose text is the row's own system turn. None: it has none, the prompt shows it elsewhere, is no chat, or
    has a system turn with another text, so that nothing would show the row's."""
    column = next((key for key in SYSTEM if text_of(row.get(key))), None)
    if column is None or prompt.template != "chat" or column in required_keys(prompt):
        return None
    return column if text_of(prompt.system) in ("", text_of(row[column])) else None


def _of_conversation(row: Row, found: Conversation) -> Training:
    *messages, answer = found.messages
    shown = {*found.columns, "tools"}
    _refuse_unshown(row, shown, DIRECTING)
    if "instruction" in found.columns or "input" in found.columns:
        _refuse_unshown(row, shown, row)
    return Training(" + ".join(found.columns), answer, messages, found.tools, data=[messages, found.tools])


def _of_pair(row: Row) -> Training:
    prompt, answer = _required(row, "input"), _required(row, "output")
    _refuse_unshown(row, {"input", "output"}, row)
    return Training("input + output, plain text", {"content": answer}, prompt=prompt, data=[prompt])


def _refuse_unshown(row: Row, shown: set[str], columns: Any) -> None:
    """Raises BadRow when one of `columns` holds something that is neither shown nor about the row."""
    parts = list(_texts([row[key] for key in shown if key in row]))
    said = "\n".join(parts)
    for key in columns:
        value = row.get(key)
        if not value or value in EMPTY or value in SWITCHES.get(key, ()):
            continue
        if key in shown or key in ABOUT or key.endswith("_id"):
            continue
        if all(text.strip() in said for text in _texts(value)):
            continue
        if isinstance(value, str) and all(part.strip() in value for part in parts):
            continue  # the same put together by whoever made the file, as Alpaca's `text`
        raise BadRow(
            "unshown_column",
            f"{key}: nothing shows it to the model. columns={{{key}: null}} leaves it out; "
            f"columns={{instruction: {key}}} and the like say what it is",
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _required(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"no_{key}")
    return value
