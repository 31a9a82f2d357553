"""Chat templates rendered without transformers equal transformers', and cannot reach out of their sandbox."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from nemo_ext.models import chat_template
from nemo_ext.models.chat_template import ChatTemplate
from nemo_ext.models.chat_tokenizer import ChatTokenizer
from nemo_ext.models.model import Model
from tests.conftest import ROOT
from tests.tiny_tokenizer import make_tokenizer

TEMPLATES = sorted(path.name for path in (Path(chat_template.__file__).parent / "chat_templates").glob("*.jinja"))
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'What is 1 < 2 & "3"?'}]
TURNS = [*MESSAGES, {"role": "assistant", "content": "True."}, {"role": "user", "content": " Sure? "}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_tokenizer(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("name", [None, *TEMPLATES])
@pytest.mark.parametrize("messages", [MESSAGES[1:], MESSAGES, TURNS])
def test_renders_as_transformers(model: Model, name: str | None, messages: list[dict[str, str]]) -> None:
    chosen = replace(model, chat_template=name)
    reference = ChatTokenizer(chosen).tokenizer
    for add in (True, False):
        expected = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=add)
        text = ChatTemplate.of(chosen).render(messages, add)
        assert text == expected
        bos = 0 if name == "nemotron4_reward.jinja" else 1
        assert text.count("<|begin_of_text|>") == text.startswith("<|begin_of_text|>") == bos
    assert ChatTemplate.of(chosen).hash == ChatTokenizer(chosen).template_hash


def _template(folder: Path, source: str) -> ChatTemplate:
    override = folder / "override.jinja"
    override.write_text(source)
    return ChatTemplate(folder, override)


def test_an_override_with_a_generation_mark_and_variables(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}{% generation %}{{ m.content | tojson }}{% endgeneration %}{% endfor %}{{ extra }}"
    )
    assert _template(tmp_path, source).render(MESSAGES[1:], extra="!") == '"What is 1 < 2 & \\"3\\"?"!'


def test_tools_are_defined_as_in_transformers(tmp_path: Path) -> None:
    assert _template(tmp_path, "{{ tools is defined and tools is none }}").render(MESSAGES) == "True"


def test_a_template_may_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="roles must alternate"):
        _template(tmp_path, "{{ raise_exception('roles must alternate') }}").render(MESSAGES)


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unsafe"):
        _template(tmp_path, "{{ messages.__class__.__mro__[1].__subclasses__() }}").render(MESSAGES)


def test_no_template_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/v1/completions.* model\.chat_template"):
        ChatTemplate(tmp_path, None).render(MESSAGES)


def test_files_of_older_checkpoints(tmp_path: Path) -> None:
    """The template inside tokenizer_config.json, alone or one of several; special tokens in a file of their own."""
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "<old>"}))
    for template in (source, [{"name": "tool_use", "template": "no"}, {"name": "default", "template": source}]):
        settings = {"chat_template": template, "eos_token": {"content": "</s>"}, "add_bos_token": True}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        assert ChatTemplate(tmp_path, None).render(MESSAGES) == "<s>Be brief.</s>"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer_config.json", "{", "tokenizer_config.json: not JSON"),
        ("tokenizer_config.json", "[]", "it must be a JSON object; it is list"),
        ("chat_template.jinja", "{% if %}", "the chat template is not valid Jinja"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        ChatTemplate(tmp_path, None)
    assert str(tmp_path) in str(raised.value)


def test_a_model_that_is_not_here_is_named(model: Model) -> None:
    for path in ("/no/such/folder", "nowhere"):
        with pytest.raises(ValueError, match=f"model tiny: hf_path='{path}' is not a folder"):
            ChatTemplate.of(replace(model, hf_path=path))


def test_a_hub_id_fetches_no_weights(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo: str, allow_patterns: list[str]) -> str:
        asked.append((repo, allow_patterns))
        return model.hf_path

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    text = ChatTemplate.of(replace(model, hf_path="meta-llama/Llama-3.1-8B-Instruct")).render(MESSAGES)
    assert text == ChatTemplate.of(model).render(MESSAGES)
    assert asked == [("meta-llama/Llama-3.1-8B-Instruct", list(chat_template.FILES))]


def test_imports_neither_torch_nor_transformers() -> None:
    program = "import sys, nemo_ext.models.chat_template; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rendered_text_has_the_tokens_of_transformers(model: Model, tmp_path: Path) -> None:
    """A tokenizer that adds BOS by itself must be told not to: the text has it."""
    folder = tmp_path / "hf"
    shutil.copytree(model.hf_path, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = ChatTemplate.of(replace(model, hf_path=str(folder))).render(MESSAGES)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    served = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids == served
    assert ids.count(tokenizer.bos_token_id) == 1
