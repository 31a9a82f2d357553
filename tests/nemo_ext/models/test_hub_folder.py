"""Exported models say where an answer ends; indexes and rotary scalings that cannot be trusted are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from nemo_ext.models.chat_tokenizer import ChatTokenizer
from nemo_ext.models.hub_folder import (
    AnswerEnd,
    check_rope_spelling,
    end_token_ids,
    name_portable_class,
    portable_config,
    weight_files,
    write_answer_end,
)
from nemo_ext.models.model import Model
from nemo_ext.models.shape import ModelShape
from nemo_ext.serving.embedded.forward.checkpoint import read_config
from tests.conftest import ROOT

SHIPPED = ROOT / "nemo_ext" / "serving" / "embedded" / "models"
TURN, TEXT = 4, 1
"""<|eot_id|> and <|end_of_text|>."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "tiny_base", tmp_path / "base"))


def model(folder: Path, **fields: str) -> Model:
    return Model(name="student", hf_path=str(folder), context_length=1024, **fields)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_shipped_base_is_like_published_ones(base: Path) -> None:
    """Else the tiny runs would not show a student that cannot stop."""
    assert end_token_ids(base) == [TEXT]
    assert not (base / "chat_template.jinja").exists()


def test_a_base_that_learned_to_chat_stops_at_the_end_of_turn(base: Path) -> None:
    (base / "special_tokens_map.json").write_text('{"eos_token": "<|end_of_text|>"}')
    write_answer_end(base, ChatTokenizer(model(base, chat_template="llama3.jinja")).answer_end)
    for name in ("config.json", "generation_config.json"):
        assert read(base / name)["eos_token_id"] == [TURN, TEXT]
    assert read(base / "generation_config.json")["temperature"] == 1.0, "the rest stays"
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        assert read(base / name)["eos_token"] == "<|eot_id|>"
    assert AutoTokenizer.from_pretrained(base).eos_token_id == TURN


def test_generation_config_is_made_where_there_is_none(base: Path) -> None:
    (base / "generation_config.json").unlink()
    write_answer_end(base, AnswerEnd((7,)))
    assert read(base / "generation_config.json") == {"eos_token_id": [7, TEXT]}


def test_without_a_template_the_end_of_text_stays(base: Path) -> None:
    end = ChatTokenizer(model(base)).answer_end
    assert end == AnswerEnd((TEXT,), None)
    write_answer_end(base, end)
    assert end_token_ids(base) == [TEXT] and read(base / "tokenizer_config.json")["eos_token"] == "<|end_of_text|>"


def test_a_template_that_writes_eos_token_keeps_it(base: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}<|eot_id|>{{ '' if eos_token else '' }}{% endfor %}"
    (base / "chat_template.jinja").write_text(template)
    assert ChatTokenizer(model(base)).answer_end == AnswerEnd((TURN, TEXT), None)


def test_what_the_files_name_already_is_kept(base: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        (base / name).write_text(json.dumps(read(base / name) | {"eos_token_id": [TEXT, 3]}))
    write_answer_end(base, AnswerEnd((TURN, TEXT)))
    assert end_token_ids(base) == [TURN, TEXT, 3]


def test_the_tokenizer_class_is_one_that_transformers_4_knows(base: Path) -> None:
    expected = ChatTokenizer(model(base)).ids("3 + 4 = 7")
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps(read(path) | {"tokenizer_class": "TokenizersBackend"}))
    name_portable_class(base)
    assert read(path)["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert ChatTokenizer(model(base)).ids("3 + 4 = 7") == expected
    path.write_text(json.dumps(read(path) | {"tokenizer_class": "Qwen2Tokenizer"}))
    name_portable_class(base)
    assert read(path)["tokenizer_class"] == "Qwen2Tokenizer"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../outside.safetensors"}}, "names '../outside.safetensors': weights must be files of"),
        ({"weight_map": {"a": "/etc/passwd"}}, "names '/etc/passwd'"),
        ({"metadata": {}}, "it has no weight_map"),
        ([], r"it must be a JSON object; it is list"),
    ],
)
def test_an_index_that_points_outside_is_refused(base: Path, index: object, message: str) -> None:
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        weight_files(base)


@pytest.mark.parametrize("read_it", [ModelShape.from_hf, read_config])
def test_a_scaling_without_its_numbers_is_refused(base: Path, read_it) -> None:
    config = read(base / "config.json")
    del config["rope_scaling"]["low_freq_factor"], config["rope_scaling"]["factor"]
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json: rope_type='llama3' needs factor, low_freq_factor"):
        read_it(base)


@pytest.mark.parametrize("read_it", [ModelShape.from_hf, read_config])
def test_a_config_that_is_no_json_is_named(base: Path, read_it) -> None:
    (base / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"base/config\.json: not JSON"):
        read_it(base)


def test_two_models_of_one_folder_have_their_own_ends(base: Path) -> None:
    plain, chat = (ChatTokenizer(replace(model(base), chat_template=name)) for name in (None, "llama3.jinja"))
    assert plain.end_ids == {TEXT} and chat.end_ids == {TURN, TEXT}


SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"rope_parameters": {"rope_theta": 5e5, **SCALED}}, {"rope_theta": 5e5, "rope_scaling": SCALED}),
        (
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "dtype": "float32"},
            {"rope_theta": 5e5, "rope_scaling": None},
        ),
        # what transformers 4 makes of 5's: its own default beside what it does not know
        (
            {"rope_parameters": {"rope_theta": 5e5, **SCALED}, "rope_theta": 1e4, "rope_scaling": None},
            {"rope_theta": 5e5, "rope_scaling": SCALED},
        ),
        ({"rope_theta": 1e6, "rope_scaling": SCALED}, {"rope_theta": 1e6, "rope_scaling": SCALED}),
    ],
)
def test_a_config_is_written_as_transformers_4_and_5_read_it(given: dict, written: dict) -> None:
    assert portable_config({"model_type": "llama", **given}, "bfloat16") == {
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        **written,
    }


THETA_5 = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}


@pytest.mark.parametrize("version", ["4.57.3", None])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (THETA_5, '"rope_theta": 500000.0, "rope_scaling": null'),
        ({"rope_parameters": {"rope_theta": 1e4, **SCALED}}, '"rope_scaling": {"rope_type": "llama3", "factor": 8.0'),
        (THETA_5 | {"rope_theta": 1e4}, '"rope_theta": 500000.0'),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "one for each kind of layer"),
    ],
)
def test_a_config_that_transformers_4_would_misread_is_not_served(
    tmp_path: Path, given: dict, said: str, version: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(ValueError, match=r"config\.json: its rope_parameters .* say nothing") as error:
        check_rope_spelling(tmp_path, version)
    assert said in str(error.value) and (version or "unknown version") in str(error.value)
    check_rope_spelling(tmp_path, "5.0.0")


@pytest.mark.parametrize(
    "given",
    [
        {"rope_theta": 5e5, "rope_scaling": SCALED},
        {},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
        THETA_5 | {"rope_theta": 5e5},
    ],
)
def test_a_config_that_transformers_4_reads_rightly_is_served(tmp_path: Path, given: dict) -> None:
    (tmp_path / "config.json").write_text(json.dumps(given))
    check_rope_spelling(tmp_path, "4.57.3")
