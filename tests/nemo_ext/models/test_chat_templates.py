"""Each shipped template on the prompts that recipes make: an empty system turn, a question, an answer."""

from dataclasses import replace
from pathlib import Path

import pytest

from nemo_ext.models import chat_tokenizer
from nemo_ext.models.chat_tokenizer import ChatTokenizer
from tests.tiny_tokenizer import make_tokenizer

TEMPLATES = sorted(path.name for path in (Path(chat_tokenizer.__file__).parent / "chat_templates").glob("*.jinja"))
EXPECTED = {
    "deepseek.jinja": ("<|begin_of_text|>User: 1+1?\n\nAssistant:", " 2<|end_of_text|>"),
    "mistral.jinja": ("<|begin_of_text|>[INST] 1+1?[/INST]", "2<|end_of_text|>"),
    "nemotron4_reward.jinja": (
        "<extra_id_0>System\n\n<extra_id_1>User\n1+1?\n<extra_id_1>Assistant\n",
        "2\n<extra_id_2>",
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_answer_follows_the_prompt_and_ends(name, model) -> None:
    tokenizer = ChatTokenizer(replace(model, chat_template=name))
    question = {"role": "user", "content": "1+1?"}
    for messages in ([question], [{"role": "system", "content": ""}, question]):
        prompt, answer = tokenizer.chat_texts(messages, "2")
        assert "1+1?" in prompt
        assert answer.strip().startswith(("2<|", "2\n<extra_id_2>"))
        if name in EXPECTED:
            assert (prompt, answer) == EXPECTED[name]
    prompt, _ = tokenizer.chat_texts([{"role": "system", "content": "Be brief."}, question], "2")
    assert prompt.index("Be brief.") < prompt.index("1+1?")
