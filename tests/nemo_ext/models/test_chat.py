import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nemo_ext.models import chat_tokenizer
from nemo_ext.models.chat_tokenizer import ChatTokenizer, sample
from nemo_ext.models.model import Model
from tests.tiny_tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_tokenizer(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tokenizer(model: Model) -> ChatTokenizer:
    return ChatTokenizer(model)


def without_template(model: Model, folder: Path, template: str | None = None) -> Model:
    shutil.copytree(model.hf_path, folder)
    (folder / "chat_template.jinja").unlink()
    if template:
        (folder / "chat_template.jinja").write_text(template)
    return replace(model, hf_path=str(folder))


ASKED = [{"role": "system", "content": ""}, {"role": "user", "content": "1+1?"}]


def test_the_prompt_ends_where_generation_starts(tokenizer: ChatTokenizer) -> None:
    prompt, answer = tokenizer.chat_texts(ASKED, "It is 2.")
    assert prompt == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert answer == "It is 2.<|eot_id|>"


def test_special_tokens_are_single_ids_and_bos_comes_once(tokenizer: ChatTokenizer) -> None:
    prompt, answer = tokenizer.chat_texts(ASKED, "2")
    ids = tokenizer.ids(prompt)
    bos, turn = (tokenizer.tokenizer.convert_tokens_to_ids(t) for t in ("<|begin_of_text|>", "<|eot_id|>"))
    assert ids[0] == bos and ids.count(bos) == 1 and ids.count(turn) == 2
    assert tokenizer.ids(answer)[-1] == turn
    assert tokenizer.tokenizer.decode(ids) == prompt


def test_training_prompts_are_what_serving_tokenises(tokenizer: ChatTokenizer) -> None:
    served = tokenizer.tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    assert tokenizer.ids(tokenizer.chat_texts(ASKED, "2")[0]) == served


def test_base_texts(tokenizer: ChatTokenizer) -> None:
    assert tokenizer.base_texts("Q", "A") == ("<|begin_of_text|>Q", "A<|end_of_text|>")


def test_counts_have_no_bos(tokenizer: ChatTokenizer) -> None:
    assert tokenizer.count("") == 0 and tokenizer.count("12") == 2
    texts = ["3 * 4 = 12", "", "pens"]
    assert tokenizer.batch_ids(texts) == [tokenizer.ids(text) for text in texts]
    assert tokenizer.batch_ids([]) == []


def test_long_texts_are_tokenised_in_pieces(tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["3 * 4 = 12", "", "pens" * 9, "coins", "1"]
    expected = tokenizer.batch_ids(texts)
    for size in (1, 11, 40):
        monkeypatch.setattr(chat_tokenizer, "PIECE", size)
        assert tokenizer.batch_ids(texts) == expected
    assert [len(piece) for piece in chat_tokenizer._pieces(["12", "34", "5" * 50, "6"])] == [2, 1, 1]


def test_a_tokenizer_file_that_truncates_does_not(model: Model) -> None:
    other = ChatTokenizer(model)
    other.tokenizer.backend_tokenizer.enable_truncation(2)
    other.tokenizer.backend_tokenizer.enable_padding(length=9)
    assert other.batch_ids(["3 * 4 = 12"]) == [ChatTokenizer(model).ids("3 * 4 = 12")]


def test_what_ends_an_answer(model: Model, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    name = tokenizer.tokenizer.convert_ids_to_tokens
    assert tokenizer.turn_end == "<|eot_id|>"
    assert {name(index) for index in tokenizer.end_ids} == {"<|eot_id|>", "<|end_of_text|>"}
    bare = ChatTokenizer(without_template(model, tmp_path / "bare"))
    assert bare.turn_end == "" and [name(index) for index in bare.end_ids] == ["<|end_of_text|>"]
    refusing = ChatTokenizer(without_template(model, tmp_path / "refusing", "{{ raise_exception('no') }}"))
    assert refusing.turn_end == "", "which does not matter to rows of text"


def test_only_the_answer_is_trained() -> None:
    made = sample([1, 2, 3], [4, 5])
    assert made.tokens == [1, 2, 3, 4, 5] and made.loss_mask == [0, 0, 0, 1, 1]


def test_a_model_s_own_template_is_replaced(model: Model, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    other = without_template(model, tmp_path / "hf", "{{ messages[0].content }}")
    own = ChatTokenizer(other)
    assert own.template_hash != tokenizer.template_hash
    assert ChatTokenizer(replace(other, chat_template="llama3.jinja")).template_hash == tokenizer.template_hash


def test_a_template_that_rewrites_the_prompt_is_refused(model: Model, tmp_path: Path) -> None:
    rewriting = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="model tiny: its chat template does not keep the prompt"):
        ChatTokenizer(without_template(model, tmp_path / "hf", rewriting)).chat_texts(ASKED, "2")


def test_a_missing_template_says_what_to_set(model: Model, tmp_path: Path) -> None:
    bare = ChatTokenizer(without_template(model, tmp_path / "hf"))
    with pytest.raises(ValueError, match=r"no chat template\. Set model\.chat_template .*llama3\.jinja"):
        bare.require_template()


def test_an_unknown_template_file_names_the_choices(model: Model) -> None:
    with pytest.raises(ValueError, match=r"'llama9\.jinja'.*llama3\.jinja"):
        ChatTokenizer(replace(model, chat_template="llama9.jinja"))


def test_a_newline_after_the_turn_is_not_trained(model: Model, tmp_path: Path) -> None:
    chatml = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    texts = ChatTokenizer(without_template(model, tmp_path / "hf", chatml)).chat_texts(ASKED, "2")
    assert texts[0].endswith("<|im_start|>assistant\n") and texts[1] == "2<|im_end|>"
