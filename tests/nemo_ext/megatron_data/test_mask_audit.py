"""Fails closed: with the tokenizer of a model that is shipped, and with what makes tokenizers and templates bad."""

import json
import re
import shutil
from pathlib import Path

import pytest

from nemo_ext.megatron.data.token_folder import PackedDataWriter
from nemo_ext.models.chat_tokenizer import ChatTokenizer, Sample
from nemo_ext.models.model import Model
from nemo_ext.samples.mask_audit import audit, check_sample
from nemo_ext.samples.sft_samples import Dropped, Made, RowBatch, SampleMaker, SampleSettings
from tests.conftest import ROOT

TINY = ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_base"
LLAMA3 = ROOT / "nemo_ext" / "models" / "chat_templates" / "llama3.jinja"
CHAT = {"id": "a", "messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "It is 2."}]}
TEXT = {"text": "One."}


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(Model(name="tiny", hf_path=str(TINY), context_length=1024, chat_template="llama3.jinja"))


def changed(folder: Path, template: str | None = None, **config: object) -> SampleMaker:
    """The tiny model with another chat template and other keys in tokenizer_config.json."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, folder / name)
    (folder / "chat_template.jinja").write_text(LLAMA3.read_text() if template is None else template)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    model = Model(name="changed", hf_path=str(folder), context_length=1024)
    return SampleMaker(SampleSettings("prepare_sft", model, None, 512, "drop"), ChatTokenizer(model))


def make(maker: SampleMaker, row: dict) -> Made | Dropped:
    return maker(RowBatch("rows.jsonl", 3, [row]))[0]


def test_the_shipped_model_is_well() -> None:
    model = Model(name="tiny", hf_path=str(TINY), context_length=1024, chat_template="llama3.jinja")
    maker = SampleMaker(SampleSettings("prepare_sft", model, None, 512, "drop"), ChatTokenizer(model))
    assert all(isinstance(made, Made) for made in maker(RowBatch("rows.jsonl", 1, [CHAT, TEXT])))
    names = maker.tokenizer.tokenizer.convert_ids_to_tokens(sorted(maker.tokenizer.end_ids))
    assert names == ["<|end_of_text|>", "<|eot_id|>"]


PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_THOUGHTS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.mark.parametrize(
    ("template", "closes"),
    [(PLAIN, "writes nothing after an answer"), (CHATML, r"closes an answer with '<\|im_end\|>'")],
)
def test_a_template_without_an_end_of_turn_of_this_tokenizer(tmp_path: Path, template: str, closes: str) -> None:
    said = rf"rows\.jsonl row 3 \(id a\): the answer's end is not trained; at the end .*{closes}\. Set model\.chat_template"
    with pytest.raises(ValueError, match=said) as error:
        make(changed(tmp_path, template), CHAT)
    assert "It must be one of ['<|end_of_text|>']" in str(error.value)
    assert isinstance(make(changed(tmp_path, template), TEXT), Made), "text needs no template"


def test_a_tokenizer_without_eos(tmp_path: Path) -> None:
    """Its str(None) must not be trained as text."""
    maker = changed(tmp_path, eos_token=None)
    assert maker.tokenizer.tokenizer.eos_token is None
    for row in (TEXT, {"input": "1", "output": "2"}):
        with pytest.raises(ValueError, match=r"row 3: model changed: its tokenizer has no EOS token.*Set eos_token"):
            make(maker, row)
    assert isinstance(make(maker, CHAT), Made), "the template ends the turn"


def test_a_template_that_cuts_the_answer(tmp_path: Path) -> None:
    maker = changed(tmp_path, WITHOUT_THOUGHTS)
    assert isinstance(make(maker, CHAT), Made)
    row = {"messages": [CHAT["messages"][0], {"role": "assistant", "content": "<think>hm</think>It is 2."}]}
    made = make(maker, row)
    assert isinstance(made, Dropped) and made.reason == "template_error"
    assert made.detail is not None and re.match(
        "model changed: its chat template changes the answer.*hm.*became", made.detail
    )


def test_a_conversation_the_template_refuses_is_dropped(tmp_path: Path) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + WITHOUT_THOUGHTS
    )
    maker = changed(tmp_path, template)
    row = {"messages": [{"role": "system", "content": "S"}, *CHAT["messages"]]}
    assert make(maker, row) == Dropped("refused_by_chat_template", "no system role")
    assert isinstance(make(maker, CHAT), Made)


def sample_of(tokenizer: ChatTokenizer, mask: str, end: str = "<|eot_id|>") -> Sample:
    """Two tokens of prompt, two of answer, an end."""
    ids = tokenizer.ids("a")[:1] * 2 + tokenizer.ids("b")[:1] * 2 + tokenizer.ids(end)
    return Sample(ids, [int(letter) for letter in mask])


def test_good_masks(tokenizer: ChatTokenizer) -> None:
    check_sample(sample_of(tokenizer, "00111"), 2, tokenizer)
    check_sample(sample_of(tokenizer, "11111"), 0, tokenizer)
    check_sample(sample_of(tokenizer, "00111", end="<|end_of_text|>"), 2, tokenizer)
    check_sample(sample_of(tokenizer, "00111", end="."), 2, tokenizer, truncated=True)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ("00000", "no token is trained; where the answer begins .* 'aa' | 'bb<|eot_id|>'"),
        ("00110", "the answer's end is not trained; at the end .*: 'aa\u27e6bb\u27e7<|eot_id|>' | ''"),
        ("01111", "the prompt is trained; .* 'a\u27e6a\u27e7' | '\u27e6bb<|eot_id|>\u27e7'"),
        ("11111", "the prompt is trained"),
        ("00011", "part of the answer is not trained"),
    ],
)
def test_bad_masks(tokenizer: ChatTokenizer, mask: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("|", r"\|")):
        check_sample(sample_of(tokenizer, mask), 2, tokenizer)


def test_one_token_of_text_is_never_predicted(tokenizer: ChatTokenizer) -> None:
    with pytest.raises(ValueError, match="no token is trained"):
        check_sample(Sample([tokenizer.tokenizer.eos_token_id], [1]), 0, tokenizer)


def test_the_audit_shows_what_is_on_disk(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    with PackedDataWriter(tmp_path / "train", {}) as writer:
        for index in range(10):
            ids = tokenizer.ids(f"Q{index}") + tokenizer.ids("\u221a2<|eot_id|>")
            writer.add(ids, [0] * len(tokenizer.ids(f"Q{index}")) + [1] * len(tokenizer.ids("\u221a2<|eot_id|>")))
    text = audit(tmp_path / "train", tokenizer, 3)
    shown = [line for line in text.splitlines() if line.startswith("Q")]
    assert shown == [f"Q{index}\u27e6\u221a2<|eot_id|>\u27e7" for index in (0, 4, 9)]
    assert text.startswith("--- train sample 0 of 10: ") and "train sample 9 of 10" in text
    assert audit(tmp_path / "train", tokenizer, 99).count("---") == 10
    mask = bytearray((tmp_path / "train" / "loss_mask.bin").read_bytes())
    mask[0] = 1
    (tmp_path / "train" / "loss_mask.bin").write_bytes(mask)
    assert "\n\u27e6Q\u27e70\u27e6" in audit(tmp_path / "train", tokenizer, 1), "a fault on disk is seen"


def test_no_samples_no_audit(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    with PackedDataWriter(tmp_path / "train", {}):
        pass
    assert audit(tmp_path / "train", tokenizer, 5) == ""
