"""Rows that are a conversation, whatever their columns are called, as messages.

messages                               as they are
conversations                          ShareGPT and NeMo chat: {"from": "human", "value": ...}
instruction, input, output, system     Alpaca; context and response are names of input and output (Dolly)
input: [turns], output                 Nemotron post-training, with system_prompt
prompt, response or completion         HelpSteer2, and TRL, whose two may be lists of turns
input, output, system                  as a question with a system turn
"""

from dataclasses import dataclass
from typing import Any

from nemo_ext.rows.exact_json import loads
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.row import Row

Message = dict[str, Any]

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "bot": "assistant", "chatgpt": "assistant", "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
SYSTEM = ("system", "system_prompt")
ALPACA = (("input", "context"), ("output", "response"))


@dataclass(frozen=True)
class Conversation:
    """The turns, of which the last is the answer to train."""

    messages: list[Message]
    tools: list[Any] | None
    columns: tuple[str, ...]
    """The row's columns that it was made of."""


def conversation_of(row: Row) -> Conversation | None:
    """What the row holds as a conversation; None where it holds none.

    Raises:
        BadRow: no_text_messages, no_assistant_turn, no_user_turn, unknown_role, bad_tools.
    """
    found = _from_turns(row) or _from_instruction(row) or _from_prompt(row)
    if found is None:
        return None
    messages, columns = found
    system = next((key for key in SYSTEM if _text(row.get(key))), None)
    if system is not None and not any(message.get("role") == "system" for message in messages):
        messages, columns = [{"role": "system", "content": row[system]}, *messages], (*columns, system)
    tools = tools_of(row.get("tools"))
    _check(messages)
    return Conversation(messages, tools, (*columns, "tools") if tools else columns)


@dataclass(frozen=True)
class Turn:
    """A question and its answer, each a text and nothing besides; `system` is "" where there is none."""

    system: str
    question: str
    answer: str


def single_turn(messages: Any) -> Turn | None:
    """The one turn of these messages; None where there are more, or a message has more than a role and a text."""
    if not isinstance(messages, list) or not all(map(_is_plain, messages)):
        return None
    said = [each for each in messages if each.get("role") != "system" or each.get("content")]
    texts = {str(each.get("role")): str(each.get("content") or "") for each in said}
    roles = [each.get("role") for each in said]
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        return None
    return Turn(texts.get("system", ""), texts["user"], texts["assistant"])


def _is_plain(message: Any) -> bool:
    return isinstance(message, dict) and {key for key, value in message.items() if value} <= {"role", "content"}


def _from_turns(row: Row) -> tuple[list[Message], tuple[str, ...]] | None:
    if row.get("messages") is not None:
        return _listed(row["messages"]), ("messages",)
    if row.get("conversations") is not None:
        return [_turn(each) for each in _listed(row["conversations"])], ("conversations",)
    return None


def _from_instruction(row: Row) -> tuple[list[Message], tuple[str, ...]] | None:
    instruction = _text(row.get("instruction"))
    context, answer = (next((key for key in names if row.get(key) is not None), None) for names in ALPACA)
    if not instruction or answer is None or (context and not isinstance(row[context], str)):
        return None
    user = f"{row['instruction']}\n\n{row[context]}" if context and _text(row[context]) else row["instruction"]
    earlier = _history(row.get("history"))
    columns = ("instruction", *((context,) if context else ()), answer, *(("history",) if earlier else ()))
    return [*earlier, *_asked(user, row[answer])], columns


def _history(history: Any) -> list[Message]:
    """Earlier [question, answer] pairs, as LLaMA-Factory has them."""
    if not history:
        return []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise BadRow("no_text_messages", "history is not a list of [question, answer]")
    return [message for question, answer in history for message in _asked(question, answer)]


def _from_prompt(row: Row) -> tuple[list[Message], tuple[str, ...]] | None:
    asked = "prompt" if row.get("prompt") is not None else "input" if row.get("input") is not None else None
    answers = ("response", "completion", "output") if asked == "prompt" else ("output",)
    answer = next((key for key in answers if row.get(key) is not None), None)
    if asked is None or answer is None:
        return None
    if isinstance(row[asked], list):
        turns = [_turn(each) for each in _listed(row[asked])]
        last = [_turn(each) for each in row[answer]] if isinstance(row[answer], list) else _asked("", row[answer])[1:]
        return [*turns, *last], (asked, answer)
    if asked == "input" and not any(key in row for key in SYSTEM):
        return None  # two texts to be taken as they are
    return _asked(row[asked], row[answer]), (asked, answer)


def _asked(question: Any, answer: Any) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _listed(turns: Any) -> list[Message]:
    if not isinstance(turns, list) or not all(isinstance(each, dict) for each in turns):
        raise BadRow("no_text_messages")
    return turns


def _turn(turn: Any) -> Message:
    """{"from": "human", "value": "Hello"} -> {"role": "user", "content": "Hello"}; a message stays as it is."""
    if not isinstance(turn, dict):
        raise BadRow("no_text_messages")
    if "from" not in turn:
        return turn
    role = ROLES.get(str(turn["from"]).lower())
    if role is None:
        raise BadRow("unknown_role", f"{turn['from']!r}; known are {', '.join(ROLES)}")
    return {"role": role, "content": turn.get("value")}


def tools_of(tools: Any) -> list[Any] | None:
    """Descriptions of functions, as a list or, as parquet files have them, as JSON."""
    if isinstance(tools, str) and tools.strip():
        try:
            tools = loads(tools)
        except ValueError as error:
            raise BadRow("bad_tools", str(error)) from error
    if not tools:
        return None
    if not isinstance(tools, list):
        raise BadRow("bad_tools", f"a {type(tools).__name__}, not a list")
    return tools


def _check(messages: list[Message]) -> None:
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise BadRow("no_text_messages")
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or not (_text(last.get("content")) or last.get("tool_calls")):
        raise BadRow("no_assistant_turn")
    if not any(message.get("role") in ("user", "tool") for message in messages[:-1]):
        raise BadRow("no_user_turn")


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
