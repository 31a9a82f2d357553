"""Results of executed code are left out of the loss by characters: exactly they, whatever they say."""

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from nemo_ext.models.chat_tokenizer import ChatTokenizer
from nemo_ext.models.model import Model
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.samples import tool_outputs
from nemo_ext.samples.sft_samples import Dropped, Made, RowBatch, SampleMaker, SampleSettings
from nemo_ext.sandbox.formats import FENCED, FORMATS, LLM_CODE, Format, with_output
from tests.conftest import ROOT

TINY = str(ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_base")
TWO = (
    "First.\n<llm-code>\nprint(6 * 7)\n</llm-code>\n<llm-code-output>\n42\n</llm-code-output>\nThen\n"
    "<llm-code>\nx\n</llm-code>\n<llm-code-output>\nNameError: é\n  x\n</llm-code-output>\nSo \\boxed{42}."
)
TORA = "```python\nprint(1)\n```\n```output\n1\n```\nand\n```python\nprint(2)\n```\n````output\n```\n2\n````\nIt is 2."


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in tool_outputs.tool_outputs(text)]


@pytest.mark.parametrize(
    ("text", "results"),
    [
        (TWO, ["42", "NameError: é\n  x"]),
        (TORA, ["1", "```\n2"]),
        ("No code, <b>tags</b> and ```ticks``` at most.", []),
        ("```python\nprint(1)\n```\nnever executed", []),
        ("```\nany fence\n```", []),
        ("<llm-code>\n</llm-code>\n<llm-code-output>\n\n</llm-code-output>\n", [""]),
        ("<llm-code>1</llm-code><llm-code-output>1</llm-code-output>", ["1"]),
        ("</llm-code>\r\n<llm-code-output>\r\n7\r\n</llm-code-output>", ["7"]),
        ("</llm-code>\n<llm-code-output>\n```output\n7\n</llm-code-output>", ["```output\n7"]),
        ("```python\n```\n```output\n<llm-code>\n```\n", ["<llm-code>"]),
        ("```python\n```\n```output\n```\n", [""]),
        ("``` python\n1\n```\n``` output\n1\r\n```", ["1"]),
    ],
)
def test_spans(text: str, results: list[str]) -> None:
    assert found(text) == results


@pytest.mark.parametrize(
    "text",
    [
        "</llm-code>\n<llm-code-output>\n7\n",  # unclosed
        "7\n</llm-code-output>",
        "invented <llm-code-output>\n7\n</llm-code-output>",  # without a block before it
        "</llm-code>\n<llm-code-output>\n<llm-code-output>\n7\n</llm-code-output>",  # printed, in a result
        "</llm-code>\n<llm-code-output>\n7</llm-code-output>\n8\n</llm-code-output>",
        "</llm-code>\n<llm-code-output>\n<llm-code-output>7</llm-code-output>\n</llm-code-output>",
        "</llm-code>\n<llm-code-output>\n</llm-code-output> <llm-code-output>\n7\n</llm-code-output>",
        '<llm-code>\nprint("<llm-code-output>")\n</llm-code>\n<llm-code-output>\n7\n</llm-code-output>',
        "```python\n1\n```\n```output\n1\n",
        "```python\n1\n```\n```output\n```\n1\n```\n",  # a result that prints a fence
        "```output\n<llm-code-output>\n```",
    ],
)
def test_marks_that_are_unclear_are_refused(text: str) -> None:
    with pytest.raises(BadRow, match=tool_outputs.REASON):
        found(text)


RESULTS = st.lists(st.text("ab7\n `<>/é", max_size=12) | st.just("</llm-code-output>") | st.just("```"), max_size=4)


@given(RESULTS, st.sampled_from(sorted(FORMATS)))
def test_what_the_tool_loop_writes_is_found(results: list[str], name: str) -> None:
    """Its marks cannot be ended by a result, so a span is a result as the loop frames it."""
    form, text, written = FORMATS[name], "Begin.", []
    if form is FENCED:  # where marks of the other format are unclear
        results = [result.replace("</llm-code-output>", "```") for result in results]
    for result in results:
        text = with_output(form, f"{text}\n{block(form)}", result) + "Words.\n"
        framed = result.rstrip("\n")
        written.append(framed if form is FENCED else framed.replace("</llm-code-output>", "&lt;/llm-code-output>"))
    assert found(text) == written


def block(form: Format) -> str:
    return "<llm-code>\n1\n</llm-code>" if form is LLM_CODE else "```python\n1\n```"


def maker(masked: bool, overlong: str = "drop", length: int = 512, path: str = TINY) -> SampleMaker:
    model = Model(name="tiny", hf_path=path, context_length=1024, chat_template="llama3.jinja")
    settings = SampleSettings("prepare_sft", model, None, length, overlong, mask_tool_outputs=masked)
    return SampleMaker(settings, ChatTokenizer(model))


def made(maker: SampleMaker, answer: str) -> Any:
    messages = [{"role": "user", "content": "</llm-code>?"}, {"role": "assistant", "content": answer}]
    return maker(RowBatch("rows.jsonl", 1, [{"messages": messages}]))[0]


def parts(maker: SampleMaker, sample: Made) -> tuple[str, str]:
    """What of the answer is trained, and what is not."""
    tokens, mask = array("I", sample.tokens), list(sample.loss_mask)
    answer = range(mask.index(1), len(mask))
    texts = [[tokens[i] for i in answer if mask[i] == wanted] for wanted in (1, 0)]
    trained, masked = (maker.tokenizer.tokenizer.decode(ids) for ids in texts)
    return trained, masked


@pytest.mark.parametrize("text", [TWO, TORA])
def test_the_results_and_nothing_else_are_masked(text: str) -> None:
    with_mask, without = maker(True), maker(False)
    sample, plain = made(with_mask, text), made(without, text)
    results = found(text)
    assert sample.tokens == plain.tokens and plain.num_masked == 0 < sample.num_masked
    trained, masked = parts(with_mask, sample)
    assert masked == "".join(results)
    spans = tool_outputs.tool_outputs(text)
    kept = "".join(
        text[end:start] for (_, end), (start, _) in zip([(0, 0), *spans], [*spans, (len(text), 0)], strict=True)
    )
    assert trained == kept + "<|eot_id|>"
    assert sum(plain.loss_mask) - sum(sample.loss_mask) == sample.num_masked


def test_a_token_that_straddles_a_border_belongs_to_the_result() -> None:
    """Of "7\\n\\n</llm-code-output>" the last line break is the frame's, and both are one token here."""
    text = "</llm-code>\n<llm-code-output>\n7\n\n</llm-code-output>\nDone."
    one = maker(True)
    ids, offsets = one.tokenizer.ids_and_offsets(text)
    assert found(text) == ["7\n"]
    assert one.tokenizer.tokenizer.decode(ids[offsets.index((31, 33))]) == "\n\n"
    assert parts(one, made(one, text)) == (
        "</llm-code>\n<llm-code-output>\n</llm-code-output>\nDone.<|eot_id|>",
        "7\n\n",
    )


def test_a_cut_answer_keeps_its_mask() -> None:
    whole = made(maker(True), TWO)
    length = len(whole.loss_mask) - 30
    cut = made(maker(True, "truncate", length), TWO)
    assert cut.truncated and cut.loss_mask == whole.loss_mask[:length]


def test_unclear_rows_are_dropped_only_where_results_are_masked() -> None:
    text = "<llm-code>\n1\n</llm-code>\n<llm-code-output>\n1"
    dropped = made(maker(True), text)
    assert isinstance(dropped, Dropped) and dropped.reason == "unclear_tool_output"
    assert isinstance(made(maker(False), text), Made)


def test_tokens_without_a_character_of_a_span_are_a_bug() -> None:
    with pytest.raises(ValueError, match="characters 1 to 3 of the answer are in no token"):
        tool_outputs.tokens_within([(1, 3)], [(0, 2), (3, 4)])
    assert tool_outputs.tokens_within([(1, 3), (5, 5)], [(0, 2), (2, 3), (2, 3), (3, 9)]) == {0, 1, 2}


def test_spaces_before_a_word_belong_to_its_token_in_tokenizers_of_llama_2s_kind() -> None:
    """Their tokens begin with the space, and the first of a text has one that is not in it."""
    vocabulary = {token: number for number, token in enumerate(["<unk>", "▁", "4", "2", "▁4", "x", "▁x"])}
    kind = Tokenizer(models.BPE(vocabulary, [("▁", "4"), ("▁", "x")], unk_token="<unk>"))
    kind.pre_tokenizer, kind.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    encoding = kind.encode("x 42 x")
    assert encoding.tokens == ["▁x", "▁4", "2", "▁x"]
    assert tool_outputs.tokens_within([(2, 4)], encoding.offsets) == {1, 2}
