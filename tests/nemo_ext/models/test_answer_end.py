"""The tokens that end an answer, as the clients send them and as the trainer knows them."""

import json
from pathlib import Path

import pytest

from nemo_ext.models.answer_end import answer_end_ids
from nemo_ext.models.chat_tokenizer import ChatTokenizer
from nemo_ext.models.model import Model
from nemo_ext.prompts.prompt import Prompt
from recipes.asking.served import stop_token_ids
from recipes.stages.generation.generate import Config
from tests.conftest import ROOT

MODELS = ROOT / "nemo_ext/serving/embedded/models"


@pytest.mark.parametrize("name", ["tiny_base", "tiny_teacher", "tiny_coder"])
@pytest.mark.parametrize("template", [None, "llama3.jinja"])
def test_they_are_those_of_the_trainer(name: str, template: str | None) -> None:
    model = Model(name=name, hf_path=str(MODELS / name), chat_template=template, context_length=64)
    assert answer_end_ids(model) == ChatTokenizer(model).answer_end.ids


def test_a_base_whose_files_name_its_own_end_alone(tmp_path: Path) -> None:
    """As Llama-3.1-8B, fine-tuned elsewhere: eos is the end of text, and the template closes with <|eot_id|>."""
    for file in (MODELS / "tiny_base").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|end_of_text|>"}))
    model = Model(name="m", hf_path=str(tmp_path), chat_template="llama3.jinja", context_length=64)
    ids = answer_end_ids(model)
    assert ids == ChatTokenizer(model).answer_end.ids and len(ids) == 2


def test_which_servers_are_sent_them(tmp_path: Path) -> None:
    model = Model(name="m", hf_path=str(MODELS / "tiny_base"), chat_template="llama3.jinja", context_length=64)

    def sent(template: str, **server: object) -> tuple[int, ...]:
        cfg = Config(name="x", output_dir=str(tmp_path), model=model, server=dict(server))
        return stop_token_ids(cfg, Prompt(name="p", template=template, user="{problem}"))

    for kind in ("embedded", "vllm", "sglang", "trtllm"):
        assert sent("chat", kind=kind) == answer_end_ids(model) != ()
        assert sent("base", kind=kind) == ()
    assert sent("chat", kind="external", urls=[]) == ()
    assert sent("chat", kind="external", urls=[], stop_token_ids=[7]) == (7,)
