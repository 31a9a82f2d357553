"""Limits in tokens: always what counting the whole text says, and mostly without doing so."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from nemo_ext.curation.token_limits import _NEVER_ACROSS_A_SPACE, Bounded, Counted, serialised_tokenizer
from nemo_ext.models.chat_tokenizer import ChatTokenizer
from nemo_ext.models.model import Model
from nemo_ext.toy.sources import solved
from tests.conftest import ROOT

SHIPPED = ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_base"
CORPUS = [
    f"{row['problem']}\n\n{row.get('solution', '')} caf\u00e9 \u03c0\u00b2 \n \n x"
    for row, _ in zip(solved(), range(300), strict=False)
]
texts = st.lists(
    st.sampled_from([" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\x1c", "a", "the", "12", "1234", ".", "...", "'s", "I'll",
                     "caf\u00e9", "e\u0301", "\u03c0", "\U0001f600", "\x00", "<|end|>", "<|end_of_text|>", "\\frac{1}{2}", "$x$", "_", "\u200b"])
    | st.text(max_size=4),
    max_size=40,
).map("".join)  # fmt: skip


def trained(pre_tokenizer: object, normalizer: object = None, added: tuple = ("<|end|>",)) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(list(added))
    return tokenizer.to_str()


def split_by(pattern: str) -> object:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


KINDS = {
    "shipped": (SHIPPED / "tokenizer.json").read_text(),
    "gpt2": trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "llama3": trained(split_by(_NEVER_ACROSS_A_SPACE[0])),
    "qwen2": trained(split_by(_NEVER_ACROSS_A_SPACE[1]), normalizers.NFC()),
    "prefix_space": trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "across_spaces": trained(split_by(r"[^\n]+|\n+")),
    "added_with_space": trained(pre_tokenizers.ByteLevel(add_prefix_space=False), added=("the a",)),
    "metaspace": trained(pre_tokenizers.Metaspace()),
    "lower_case": trained(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Lowercase()),
}
COUNTERS = {name: Tokenizer.from_str(content) for name, content in KINDS.items()}
LENGTHS = {name: Bounded(content) for name, content in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(texts, st.integers(-3, 3))
def test_is_what_counting_says(kind: str, text: str, offset: int) -> None:
    truth = Counted(lambda text: len(COUNTERS[kind].encode(text, add_special_tokens=False).ids))
    count = truth.count(text)
    for limit in (count + offset, len(text), len(text.encode()) // 2, 0):
        assert LENGTHS[kind].above(text, limit) == truth.above(text, limit), (count, limit)
        assert LENGTHS[kind].below(text, limit) == truth.below(text, limit), (count, limit)


@pytest.mark.parametrize("kind", KINDS)
def test_is_what_counting_says_of_real_text(kind: str) -> None:
    for text in ("\n".join(CORPUS[i : i + 4]) for i in range(0, 60, 4)):
        count = len(COUNTERS[kind].encode(text, add_special_tokens=False).ids)
        assert not LENGTHS[kind].above(text, count) and LENGTHS[kind].above(text, count - 1)


def test_most_texts_are_settled_by_their_bytes() -> None:
    lengths = Bounded(KINDS["llama3"])
    assert not lengths.above("word " * 200, 1000) and lengths.above("word " * 200_000, 100)
    assert lengths._tokenizer is None and lengths.num_counted == 0
    assert not lengths.above("the " * 400, 1000) and lengths.num_counted == 1
    assert len(lengths._pieces) == 2, "a word is counted once"


@pytest.mark.parametrize(("kind", "in_pieces"), [("shipped", True), ("gpt2", True), ("llama3", True), ("qwen2", True),
    ("prefix_space", False), ("across_spaces", False), ("added_with_space", False), ("metaspace", False), ("lower_case", False)])  # fmt: skip
def test_what_is_known_of_a_tokenizer(kind: str, in_pieces: bool) -> None:
    assert LENGTHS[kind].facts.never_across_a_space is in_pieces


def test_a_tokenizer_that_takes_white_space_along_has_no_lower_bound() -> None:
    content = json.loads(KINDS["gpt2"])
    content["added_tokens"][0]["rstrip"] = True
    lengths = Bounded(json.dumps(content))
    assert not lengths.above("<|end|>" + " " * 100_000, 3)


@pytest.mark.parametrize(
    "change", [{}, {"tokenizer_class": "LlamaTokenizer"}, {"eos_token": "<|new|>"}, {"add_prefix_space": False}]
)
def test_the_file_is_taken_only_where_transformers_takes_it_unchanged(
    change: dict, tmp_path: Path, monkeypatch
) -> None:
    config = json.loads((SHIPPED / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | change))
    (tmp_path / "tokenizer.json").write_text(KINDS["shipped"])
    asked = []
    monkeypatch.setattr(
        "nemo_ext.models.chat_tokenizer.ChatTokenizer", lambda model: asked.append(model) or ChatTokenizer(model)
    )
    model = Model(name="tiny", hf_path=str(tmp_path), context_length=512)
    content = serialised_tokenizer(model)
    assert bool(asked) is bool(change)
    if not change:
        whole = ChatTokenizer(model).tokenizer.backend_tokenizer.to_str()
        assert json.loads(content) == json.loads(whole)


@pytest.mark.parametrize("place", ["/nowhere/none", "here/there/none"])
def test_a_tokenizer_that_is_not_here_is_a_line(place: str) -> None:
    with pytest.raises(ValueError, match=rf"there is no folder {place}, .*student\.hf_path=.*max_chars: 4000"):
        serialised_tokenizer(Model(name="tiny", hf_path=place, context_length=512))
