"""Blocks, results and cutting as text."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.curation.code_blocks import blocks
from nemo_ext.sandbox.formats import FENCED, LLM_CODE, Format, cut, find_block, is_open, with_output
from nemo_ext.sandbox.output import KEPT_BYTES, Output, printable

FORMATS = pytest.mark.parametrize("form", [LLM_CODE, FENCED], ids=lambda form: form.name)
PLAIN = st.text(st.characters(exclude_characters="`<", exclude_categories=["Cs"]), max_size=60)


def block(form: Format, code: str) -> str:
    return f"<llm-code>\n{code}\n</llm-code>" if form is LLM_CODE else f"```python\n{code}\n```"


def test_llm_code_byte_for_byte() -> None:
    text = with_output(LLM_CODE, "We add.\n<llm-code>\nprint(1 + 1)\n</llm-code>", "2")
    assert text == ("We add.\n<llm-code>\nprint(1 + 1)\n</llm-code>\n<llm-code-output>\n2\n</llm-code-output>\n")


def test_fenced_byte_for_byte() -> None:
    text = with_output(FENCED, "We add.\n```python\nprint(1 + 1)\n```\n", "2\n")
    assert text == "We add.\n```python\nprint(1 + 1)\n```\n```output\n2\n```\n"


@FORMATS
@given(before=PLAIN, code=PLAIN, space=st.sampled_from(["", "\n", " \n\n"]))
@settings(max_examples=60)
def test_the_block_at_the_end_is_found(form: Format, before: str, code: str, space: str) -> None:
    text = before + "\n" + block(form, code)
    found = find_block(form, text + space)
    assert found is not None
    assert found.code.strip() == code.strip()
    assert text[found.start : found.end] == block(form, code)
    assert not is_open(form, text)


@FORMATS
@given(text=PLAIN, code=PLAIN)
@settings(max_examples=60)
def test_a_block_that_is_not_at_the_end_or_not_closed_is_none(form: Format, text: str, code: str) -> None:
    assert find_block(form, text) is None
    assert find_block(form, block(form, code) + "\nand on") is None
    opened = block(form, code).removesuffix(form.closing)
    assert find_block(form, text + "\n" + opened) is None
    assert is_open(form, text + "\n" + opened)


@pytest.mark.parametrize(
    ("form", "text", "code"),
    [
        (LLM_CODE, "<llm-code>x = 1</llm-code>", "x = 1"),
        (LLM_CODE, "<llm-code>\na\n</llm-code>\nthen\n<llm-code>\nb\n</llm-code>", "b"),
        (LLM_CODE, "<llm-code>\nhalf\n<llm-code>\nwhole\n</llm-code>", "whole"),
        (LLM_CODE, "<llm-code>\n\n</llm-code>", ""),
        (LLM_CODE, "</llm-code>", None),
        (FENCED, "```py\nx\n```", "x\n"),
        (FENCED, "```Python \nx\n```  \n", "x\n"),
        (FENCED, "```\nx\n```", None),
        (FENCED, "```python\ns = '''\n``` in a text\n'''\n```", "s = '''\n``` in a text\n'''\n"),
        (FENCED, "Inline ```python x```", None),
        (FENCED, "``` python\nx\n```", "x\n"),
        (FENCED, "```python3\nx\n```", "x\n"),
        (FENCED, "```  PY\nx\n```", "x\n"),
        (FENCED, "1. Run\n   ```python\n   for i in y:\n       print(i)\n   ```", "for i in y:\n    print(i)\n"),
        (FENCED, "```python\r\nx = 1\r\nx\r\n```\r\n", "x = 1\nx\n"),
        (FENCED, "```python\nprint(3+4)```", "print(3+4)"),
        (FENCED, "```python\nprint(3+4) ```\n", "print(3+4)"),
        (FENCED, "```python\nprint(3+4)```\nand on", None),
        (FENCED, "```python\n    x = 1\n    if x:\n        x\n```", "x = 1\nif x:\n    x\n"),
        (FENCED, "    ```python\n    x\n    ```", None),
        (FENCED, "```pythonic\nx\n```", None),
        (FENCED, "```python\ndef f():\n    '''\n    ```\n    '''\n```", "def f():\n    '''\n    ```\n    '''\n"),
        (FENCED, "```python\ns = 'a```'\n```", "s = 'a```'\n"),
        (LLM_CODE, "<llm-code>\r\nx = 1\r\nx\r\n</llm-code>", "x = 1\nx"),
        (LLM_CODE, "<llm-code>\n   x = 1\n   x\n   </llm-code>", "x = 1\nx\n"),
    ],
)
def test_blocks_models_write(form: Format, text: str, code: str | None) -> None:
    found = find_block(form, text)
    assert (found.code if found else None) == code


CODE = st.sampled_from(["x = 1", "for i in y:\n    print(i)", "s = '''\n``` in a text\n'''", "print('`')", "x\n\n\ny"])
RESULT = st.lists(
    st.sampled_from(["42", "```", "   ```", "```output", "````", "`" * 7, "a```", "</llm-code-output>", "<llm-code>", "&lt;", ""])
).map("\n".join)  # fmt: skip


@given(
    code=CODE,
    result=RESULT,
    language=st.sampled_from(["python", "py", "python3", "Python", " python", "\tpy "]),
    indent=st.integers(0, 3),
    newline=st.sampled_from(["\n", "\r\n"]),
    same_line=st.booleans(),
)
def test_what_the_loop_executes_is_what_the_filters_read(
    code: str, result: str, language: str, indent: int, newline: str, same_line: bool
) -> None:
    """One block, however it was written; and its result, whatever it says, is the only thing in its frame."""
    lines = [f"```{language}", *code.split("\n")]
    lines = [*lines[:-1], lines[-1] + "```"] if same_line else [*lines, "```"]
    written = newline.join(" " * indent + line for line in lines)
    found = find_block(FENCED, f"We run\n{written}\n")
    assert found is not None
    assert found.code.strip() == code
    text = with_output(FENCED, f"We run\n{written}", result) + "So 42."
    assert [(one.kind, one.text) for one in blocks(text) or ()] == [("code", code), ("output", result.strip())]


@given(result=RESULT)
def test_a_result_cannot_end_the_frame_of_tags(result: str) -> None:
    text = with_output(LLM_CODE, "<llm-code>\nx\n</llm-code>", result) + "So 42."
    shown = result.replace("</llm-code-output>", "&lt;/llm-code-output>").replace("<llm-code>", "&lt;llm-code>")
    assert [(one.kind, one.text) for one in blocks(text) or ()] == [("code", "x"), ("output", shown.strip())]
    assert text.count("<llm-code-output>") == text.count("</llm-code-output>") == 1


def test_a_fence_grows_only_where_it_must() -> None:
    assert with_output(FENCED, "x", "a\n```\nb") == "x\n````output\na\n```\nb\n````\n"
    assert with_output(FENCED, "x", "in `a` line ``` of it") == "x\n```output\nin `a` line ``` of it\n```\n"


def test_long_texts_are_read_in_linear_time() -> None:
    """Each of these takes minutes if looking is quadratic; a second is a hundred times what it takes."""
    for text in (
        "`" * 200_000,
        "a" + "`" * 200_000 + "b",
        "```python\n" + " \n" * 100_000,
        "a``` \n" * 50_000,
        " " * 200_000,
    ):
        started = time.process_time()
        blocks(f"```\n```\n{text}")
        find_block(FENCED, f"```python\n{text}")
        assert time.process_time() - started < 20


@given(text=st.text(max_size=200), limit=st.integers(1, 50), keep=st.sampled_from(["head", "head_tail"]))
def test_cut_keeps_what_it_says(text: str, limit: int, keep: str) -> None:
    shown = cut(text, limit, keep, "<output cut>")
    if len(text) <= limit:
        assert shown == text
        return
    assert len(shown) == limit + len("<output cut>")
    head = limit if keep == "head" else (limit + 1) // 2
    assert shown.startswith(text[:head] + "<output cut>")
    assert shown.endswith(text[len(text) - (limit - head) :] if limit > head else "<output cut>")


@given(st.lists(st.binary(max_size=400) | st.integers(1, KEPT_BYTES).map(lambda n: b"z" * n), max_size=12))
@settings(max_examples=60)
def test_output_keeps_both_ends_of_any_stream(chunks: list[bytes]) -> None:
    output, whole = Output(), b"".join(chunks)
    for chunk in chunks:
        output.add(chunk)
    text, truncated = output.text()
    assert truncated == (len(whole) > 2 * KEPT_BYTES)
    if truncated:
        missing = len(whole) - 2 * KEPT_BYTES
        assert text == f"{printable(whole[:KEPT_BYTES])}\n... {missing} bytes ...\n{printable(whole[-KEPT_BYTES:])}"
    else:
        assert text == printable(whole)


@given(st.binary(max_size=300))
def test_any_bytes_become_text_that_a_json_file_and_a_terminal_take(data: bytes) -> None:
    text = printable(data)
    assert json.loads(json.dumps(text).encode()) == text
    assert text.encode().decode() == text
    assert not [c for c in text if c < " " and c not in "\n\t"]
