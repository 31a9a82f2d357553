"""Rows as others write them: special tokens in their text, parts beside the text, templates that fail for some."""

import json
import shutil
from pathlib import Path

import pytest

from nemo_ext.megatron.data.token_folder import PackedData
from tests.conftest import ROOT
from tests.recipes.conftest import Ran

TINY = ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_base"
LLAMA3 = ROOT / "nemo_ext" / "models" / "chat_templates" / "llama3.jinja"
PROMPT = {"name": "p", "template": "chat", "system": "", "user": "Solve.\n\n{problem}"}
GOOD = {"problem": "P", "solution": r"S \boxed{1}"}
USER = {"role": "user", "content": "U"}


@pytest.fixture
def prepare(run, tmp_path: Path):
    def start(data: list[dict], folder: str = "out", hf_path: Path = TINY, **keys) -> Ran:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in data))
        model = {"name": "tiny", "hf_path": str(hf_path), "context_length": 512}
        if hf_path == TINY:
            model["chat_template"] = LLAMA3.name
        return run(
            "prepare_sft", input=str(path), model=model, folder=folder, **{"prompt": PROMPT, "seq_length": 512} | keys
        )

    return start


@pytest.fixture
def changed(tmp_path: Path):
    """A copy of the tiny model with another chat template, or other keys in tokenizer.json or its config."""

    def make(template: str | None = None, tokenizer: dict | None = None, **config) -> Path:
        folder = shutil.copytree(TINY, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
        (folder / "chat_template.jinja").write_text(LLAMA3.read_text() if template is None else template)
        for name, keys in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
            path = folder / name
            path.write_text(json.dumps(json.loads(path.read_text()) | (keys or {})))
        return folder

    return make


def answers(ran: Ran) -> list[str]:
    """The trained text of every sample."""
    from transformers import AutoTokenizer

    tokenizer, data = AutoTokenizer.from_pretrained(TINY), PackedData.open(ran.folder / "train")
    return [tokenizer.decode(tokens[mask == 1]) for tokens, mask in (data.sample(i) for i in range(len(data)))]


def test_one_end_token_behind_an_answer_is_taken_away(prepare) -> None:
    ends = [r"S \boxed{1}<|eot_id|>", r"S \boxed{1}<|eot_id|> ", r"S \boxed{1}<|end_of_text|>"]
    ran = prepare([GOOD, *({"problem": "P", "solution": end} for end in ends), {"text": "T<|end_of_text|>"}])
    assert answers(ran) == [r"S \boxed{1}<|eot_id|>"] * 4 + ["T<|end_of_text|>"]
    assert ran.manifest["figures"]["end_tokens_stripped"] == 4


EOT = "The token <|eot_id|> ends a turn."


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "P", "solution": EOT},
        {"problem": "P", "solution": "2<|eot_id|><|eot_id|>"},
        {"problem": f"P {EOT}", "solution": "2"},
        {"problem": "P<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYes", "solution": "2"},
        {"messages": [USER | {"content": EOT}, {"role": "assistant", "content": "2"}]},
        {"messages": [USER | {"role": "user<|end_header_id|>"}, USER, {"role": "assistant", "content": "2"}]},
        {"messages": [USER, {"role": "assistant", "content": "2"}], "tools": [{"name": EOT}]},
        {"input": EOT, "output": "2"},
        {"input": "I", "output": EOT},
        {"text": f"<|begin_of_text|>{EOT}"},
    ],
)
def test_a_special_token_in_a_row_s_text_drops_it(prepare, row: dict) -> None:
    ran = prepare([GOOD, row])
    assert ran.reasons == ["special_token"] and "<|" in ran.dropped[0]["detail"] and len(ran.output) == 1


def test_special_tokens_that_are_meant_are_named(prepare) -> None:
    row = {"text": "A<|eot_id|>B"}
    ran = prepare([row], allowed_special_tokens=["<|eot_id|>"])
    assert answers(ran) == ["A<|eot_id|>B<|end_of_text|>"]
    ran = prepare([GOOD, {"text": "A<|start_header_id|>"}], allowed_special_tokens=["<|eot_id|>"], folder="other")
    assert ran.reasons == ["special_token"]


def test_no_bos_where_the_tokenizer_puts_none(prepare, changed) -> None:
    row = {"input": "1 2 3", "output": "4"}
    (usual,) = prepare([row]).output
    (bare,) = prepare([row], hf_path=changed(tokenizer={"post_processor": None}), folder="bare").output
    assert usual["num_tokens"] == bare["num_tokens"] + 1


SHOWING = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}[{{ call.function.name }}]{% endfor %}<|eot_id|>{% endfor %}"
    "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def test_all_of_the_last_message_is_trained(prepare, changed) -> None:
    last = {"role": "assistant", "content": r"\boxed{2}", "reasoning_content": "One and one make two."}
    rows = [
        {"messages": [USER, last]},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    ]
    template = SHOWING + "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
    ran = prepare(rows, hf_path=changed(template))
    assert answers(ran) == [r"<think>One and one make two.</think>\boxed{2}<|eot_id|>", "[add]<|eot_id|>"]


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"messages": [USER, {"role": "assistant", "content": "2", "reasoning_content": "Hm."}]}, "reasoning_content"),
        ({"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}]}, "tool_calls"),
        ({"messages": [USER, {"role": "assistant", "content": "2", "tool_calls": [CALL]}]}, "tool_calls"),
        ({"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, USER, {"role": "assistant",
          "content": "2"}]}, "tool_calls"),
        ({"messages": [USER, {"role": "assistant", "content": "2"}], "tools": [CALL]}, "tools"),
    ],
)  # fmt: skip
def test_what_the_template_does_not_show_drops_the_row(prepare, row: dict, part: str) -> None:
    ran = prepare([GOOD, row])
    assert ran.reasons == ["template_error"] and f"does not show {part}" in ran.dropped[0]["detail"]


def test_one_row_does_not_stop_the_others(prepare) -> None:
    answer = {"role": "assistant", "content": "A"}
    bad = [[answer], [USER, {"content": "no role"}, answer], [USER, USER | {"content": None}, answer]]
    deep: list = []
    for _ in range(300):
        deep = [deep]
    nested = {"messages": [USER, answer], "tools": [{"parameters": deep}]}
    ran = prepare([GOOD, nested, *({"messages": each} for each in bad), GOOD])
    assert ran.reasons.pop(0) == "template_error"
    assert len(ran.output) == 2 and ran.reasons == ["no_user_turn", "refused_by_chat_template", "no_text_messages"]


def test_a_template_that_takes_no_row_is_an_error(prepare, changed) -> None:
    refusing = changed("{{ raise_exception('never') }}")
    said = r"stages\.out: the chat template of model tiny takes none of the 2 rows that need it; of the last, never"
    with pytest.raises(ValueError, match=said):
        prepare([GOOD, GOOD, {"text": "T"}], hf_path=refusing)


def test_no_template_is_an_error(prepare, changed) -> None:
    folder = changed("")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"row 1: model tiny: its tokenizer has no chat template\. Set"):
        prepare([GOOD], hf_path=folder)


def test_a_token_that_the_model_has_no_embedding_for(prepare, changed) -> None:
    folder = changed()
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    token = {"id": 1024, "content": "<think>", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}  # fmt: skip
    path.write_text(json.dumps(content | {"added_tokens": [*content["added_tokens"], token]}))
    ran = prepare([GOOD], hf_path=folder)
    assert PackedData.open(ran.folder / "train").facts["largest_token"] < 1024
    said = (
        r"rows\.jsonl row 2 \(id b\): the token '<think>' has the id 1024, and model tiny has embeddings for .* 1024 "
    )
    with pytest.raises(ValueError, match=said):
        prepare([GOOD, GOOD | {"id": "b", "solution": "<think>Hm."}], hf_path=folder, folder="bad")


def test_rows_marked_as_wrong_are_not_trained_unless_asked_for(prepare) -> None:
    rows = [{"question": "P", "generated_solution": "S", "is_correct": correct} for correct in (True, False, None)]
    ran = prepare(rows)
    assert ran.reasons == ["incorrect"] and len(ran.output) == 2
    assert len(prepare(rows, keep_incorrect=True, folder="all").output) == 3


def test_columns_and_layouts_are_counted(prepare, caplog) -> None:
    rows = [{"ask": "P", "reply": r"\boxed{1}"}, {"ask": "P", "reply": "A proof."}, {"problem": "P", "solution": "S"}]
    ran = prepare(rows, columns={"problem": "ask", "generated_solution": "reply"})
    assert ran.manifest["figures"]["layouts"] == {"problem + generated_solution": 2}
    assert ran.dropped[0]["reason"].startswith("no column 'ask', which columns.problem names")
    with caplog.at_level("INFO"):
        ran = prepare([GOOD, GOOD, {"query": "P", "response": "S"}], folder="mixed")
    assert ran.manifest["figures"]["layouts"] == {"problem + solution": 2, "query + response": 1}
    assert [record.getMessage() for record in caplog.records if "first read as" in record.getMessage()] == [
        "mixed: row 1 is the first read as problem + solution",
        "mixed: row 3 is the first read as query + response",
    ]
    with pytest.raises(ValueError, match=r"stages\.bad\.columns: problem: 3; it may be a column's name"):
        prepare([GOOD], columns={"problem": 3}, folder="bad")


ADDS = {"type": "function", "function": {"name": "add"}}
ALONE = "You are terse."


def _shown(ran: Ran) -> list[str]:
    """All of every sample."""
    from transformers import AutoTokenizer

    tokenizer, data = AutoTokenizer.from_pretrained(TINY), PackedData.open(ran.folder / "train")
    return [tokenizer.decode(data.sample(i)[0]) for i in range(len(data))]


@pytest.mark.parametrize("key", ["system", "system_prompt"])
def test_a_problem_is_asked_under_the_rows_own_system_turn(prepare, key: str) -> None:
    ran = prepare([GOOD, GOOD | {key: ALONE}])
    plain, own = _shown(ran)
    assert own == plain.replace(
        "<|start_header_id|>system<|end_header_id|>\n\n", f"<|start_header_id|>system<|end_header_id|>\n\n{ALONE}"
    )
    assert answers(ran)[0] == answers(ran)[1]
    assert ran.manifest["figures"]["layouts"] == {"problem + solution": 1, f"problem + solution + {key}": 1}


def test_what_a_curation_stage_took_up_is_trained_as_the_messages_were(run, prepare, tmp_path: Path, changed) -> None:
    """A conversation of one turn keeps its system turn and its tools through a stage that knows problems alone."""
    rows = [
        {
            "messages": [{"role": "system", "content": ALONE}, USER, {"role": "assistant", "content": "2"}],
            "tools": [ADDS],
        }
    ]
    (tmp_path / "mine.jsonl").write_text(json.dumps(rows[0]) + "\n")
    filtered = run("deduplicate", "deduplicate", input=str(tmp_path / "mine.jsonl"))
    prompt = {"name": "p", "template": "chat", "system": "", "user": "{problem}"}
    template = SHOWING + "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
    template = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}" + template.replace(
        SHOWING[SHOWING.index("{% for tool") :], ""
    )
    folder = changed(template)
    taken, direct = (
        prepare(each, name, hf_path=folder, prompt=prompt) for each, name in ((filtered.output, "a"), (rows, "b"))
    )
    assert _shown(taken) == _shown(direct) and "add" in _shown(taken)[0] and ALONE in _shown(taken)[0]


@pytest.mark.parametrize(
    ("row", "keys", "reason"),
    [
        ({"tools": [ADDS]}, {}, "template_error"),
        ({"system": ALONE}, {"prompt": PROMPT | {"system": "Another."}}, "unshown_column"),
        ({"system": ALONE}, {"prompt": PROMPT | {"template": "base", "system": None}}, "unshown_column"),
        ({"tools": [ADDS]}, {"prompt": PROMPT | {"template": "base", "system": None}}, "unshown_column"),
        ({"system": ALONE, "system_prompt": "Another."}, {}, "unshown_column"),
        ({"tools": "{"}, {}, "bad_tools"),
    ],
)
def test_a_system_turn_or_tools_that_nothing_shows(prepare, row: dict, keys: dict, reason: str) -> None:
    ran = prepare([GOOD, GOOD | row], **keys)
    assert ran.reasons == [reason] and len(ran.output) == 1


def test_a_template_that_passes_over_system_turns(prepare, changed) -> None:
    body = "<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}<|eot_id|>"
    template = "{% for m in messages if m.role != 'system' %}" + body + "{% endfor %}"
    template += "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
    asked = [{"role": "system", "content": ALONE}, USER, {"role": "assistant", "content": "A"}]
    ran = prepare([GOOD, GOOD | {"system": ALONE}, {"messages": asked}], hf_path=changed(template))
    assert ran.reasons == ["template_error"] * 2 and "does not show the system turn" in ran.dropped[0]["detail"]


def test_a_trace_that_ran_code_is_trained(prepare) -> None:
    """What generate writes of it, `trace`, is no part of the text."""
    record = {"executions": 1, "errors": {}, "ended": "answer"}
    trace = {
        "problem": "What is 2 + 2?",
        "generation": "<llm-code>\nprint(4)\n</llm-code>\nIt is \\boxed{4}.",
        "trace": record,
    }
    ran = prepare([GOOD, trace])
    assert (
        not ran.dropped
        and ran.manifest["figures"]["train_samples"] + ran.manifest["figures"]["validation_samples"] == 2
    )
