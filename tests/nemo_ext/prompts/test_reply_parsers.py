"""Reply parsers: found by file name, checked before anything runs, and never sure where a reply is not clear."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nemo_ext.prompts.replies
from nemo_ext.prompts.replies import (
    after_marker,
    boxed,
    last_code_block,
    mean_logprob,
    numbered_list,
    verdict,
    yaml_list,
)
from nemo_ext.prompts.reply_parsers import names, parser

PARAMS: dict[str, dict[str, Any]] = {"score": {"high": 4}, "after_marker": {"marker": "New problem:"}}
BULLETS = "- Algebra\n- Number theory"


def test_the_parsers_there_are() -> None:
    wanted = {"verdict", "score", "reward", "mean_logprob", "boxed", "numbered_list", "yaml_list", "after_marker"}
    assert wanted | {"last_code_block", "text"} == set(names())


def test_one_more_is_one_more_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'def parse(reply: str, *, separator: str = ";") -> list[str] | None:\n    return reply.split(separator) or None\n'
    (tmp_path / "separated.py").write_text(source)
    monkeypatch.setattr(nemo_ext.prompts.replies, "__path__", [*nemo_ext.prompts.replies.__path__, str(tmp_path)])
    assert "separated" in names()
    assert parser("separated", {})("a;b") == ["a", "b"]
    assert parser("separated", {"separator": ","})("a,b") == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("verdikt", {}, "'verdikt': unknown; it may be one of after_marker, boxed"),
        ("score", {}, "score needs high; its parameters: high, low"),
        ("score", {"high": "4"}, "high='4' is not int"),
        ("score", {"high": True}, "high=True is not int"),
        ("boxed", {"high": 4}, "unknown parameter high; it takes none"),
        ("after_marker", {"marker": "x", "end": 3}, "end=3 is not str"),
    ],
)
def test_what_it_refuses(name: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("|", r"\|")):
        parser(name, params)


@given(st.text())
def test_no_reply_is_an_error(reply: str) -> None:
    for name in names():
        value = parser(name, PARAMS.get(name, {}))(reply)
        assert value is None or not isinstance(value, list) or (value and all(item.strip() for item in value))


@pytest.mark.parametrize(
    "reply", ["3/" + "9" * 5000, "[" * 100_000, "[" + "9" * 4000 + "]", "[1e308, 1e308]", '{"a": 1}']
)
def test_numbers_beyond_all_bounds_are_none(reply: str) -> None:
    for name, params in (("score", {"high": 4}), ("reward", {}), ("mean_logprob", {})):
        assert parser(name, params)(reply) is None


ITEM = st.text("abc xyz,:'\"$\\{}^_.", min_size=1).map(str.strip).filter(lambda text: text and text[0].isalpha())


@given(st.lists(ITEM, min_size=1, max_size=20))
def test_lists_come_back_as_they_were_written(items: list[str]) -> None:
    numbered = "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1))
    assert numbered_list.parse(numbered) == items
    assert numbered_list.parse(f"Here they are:\n\n{numbered}\n") == items
    quoted = "\n".join("- '" + item.replace("'", "''") + "'" for item in items)
    assert yaml_list.parse(quoted) == items
    assert yaml_list.parse(f"Here they are:\n\n```yaml\n{quoted}\n```\nShall I go on?") == items


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ("1. Algebra\n2. Rings", ["Algebra", "Rings"]),
        ("1) Algebra\n2) Rings", ["Algebra", "Rings"]),
        ("Sure!\n\n1. **Algebra**\n2. **Rings**: ideals\n\nShall I go on?", ["Algebra", "**Rings**: ideals"]),
        ("1. A train leaves.\n\n   When does it arrive?\n2. Find $x$:\n   - $x > 0$", ["A train leaves.\n\nWhen does it arrive?", "Find $x$:\n- $x > 0$"]),
        ("1. one line\ngoes on\n2. b", ["one line\ngoes on", "b"]),
        ("1. a\n   1. sub\n   2. sub\n2. b", ["a\n1. sub\n2. sub", "b"]),
        ("1. a\r\n2. b\r\n", ["a", "b"]),
        ("", None),
        ("No list.", None),
        ("- a\n- b", None),
        ("1. a\n3. b", None),
        ("1. a\n1. b", None),
        ("2. b\n3. c", None),
        ("1. a\n2.\n3. c", None),
        ("1. a\n\n**Next**\n\n2. b", None),
        ("1. a\n2. b\n\nAnd more:\n\n1. c", None),
        ("1. Find x.\n\nwhere x is whole.", None),
        ("> 1. a\n> 2. b", None),
    ],
)  # fmt: skip
def test_numbered_lists(reply: str, items: list[str] | None) -> None:
    assert numbered_list.parse(reply) == items


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        (BULLETS, ["Algebra", "Number theory"]),
        (f"Topics:\n{BULLETS}\nThat is all.", ["Algebra", "Number theory"]),
        (f"```yaml\n{BULLETS}\n```", ["Algebra", "Number theory"]),
        ("- Algebra: groups\n- Find x: it is 3", ["Algebra: groups", "Find x: it is 3"]),
        ("- 1.50\n- yes\n- null", ["1.50", "yes", "null"]),
        ("- |\n  two\n  lines\n- 'it''s'", ["two\nlines\n", "it's"]),
        ("- a\n  goes on\n- b", ["a goes on", "b"]),
        ("- $\\frac{1}{2}$\n- b", ["$\\frac{1}{2}$", "b"]),
        ("", None),
        ("Algebra", None),
        ("-", None),
        ("- a\n-\n- c", None),
        ("- a\n  - b", None),
        ("- [a, b]\n- c", None),
        ("- &x a\n- *x", ["a", "a"]),
        ("- 'open\n- b", None),
        (f"{BULLETS}\nand\n{BULLETS}", None),
        (f"```\n{BULLETS}\n```\n```\n{BULLETS}\n```", None),
        ("- " * 3000 + "a", None),
        ("[" * 3000, None),
    ],
)
def test_yaml_lists(reply: str, items: list[str] | None) -> None:
    assert yaml_list.parse(reply) == items


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("```\na\n```\nBetter:\n```python\nb\n\nc\n```\nDone.", "b\n\nc"),
        ("1. As in\n   ```python\n   x\n   ```", "x"),
        ("````\n```\ninner\n```\n````", "```\ninner\n```"),
        ("~~~\nx\n~~~", "x"),
        ("```python\nprint(1)\n```\n```python\nprint(2", None),
        ("```python\n```", None),
        ("`x`", None),
        ("", None),
    ],
)
def test_code_blocks(reply: str, code: str | None) -> None:
    assert last_code_block.parse(reply) == code


def test_code_of_a_language() -> None:
    reply = "```python\nprint(4)\n```\n```output\n4\n```\n"
    assert last_code_block.parse(reply) == "4"
    assert last_code_block.parse(reply, language="python") == "print(4)"
    assert last_code_block.parse(reply, language="lean") is None


def test_after_a_marker() -> None:
    reply = "I write 'New problem:' and then:\nNew problem: Ava has 9 pens.\nAnswer: 9"
    assert after_marker.parse(reply, marker="New problem:") == "Ava has 9 pens.\nAnswer: 9"
    assert after_marker.parse(reply, marker="New problem:", end="Answer:") == "Ava has 9 pens."
    assert after_marker.parse(reply, marker="Problem:") is None
    assert after_marker.parse("New problem: ", marker="New problem:") is None
    with pytest.raises(ValueError, match="neither may be empty"):
        after_marker.parse(reply, marker="")


def test_boxes_and_log_probabilities() -> None:
    assert boxed.parse(r"First \boxed{1}, no: \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert boxed.parse("The answer is 3.") is None
    assert mean_logprob.parse("[-7.0, -0.25, -0.75]", skip=1) == -0.5
    assert mean_logprob.parse("[-7.0]", skip=1) is None and mean_logprob.parse("[null]") is None


@pytest.mark.parametrize(
    ("replies", "both"), [(["True", "yes"], True), (["No.", "false"], False), (["True", "no"], None), (["True", "?"], None), (["True", None], None), ([], None)]
)  # fmt: skip
def test_verdicts_that_agree(replies: list[str | None], both: bool | None) -> None:
    assert verdict.agreed(replies) is both
