import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.rows.exact_json import dumps, loads
from nemo_ext.rows.outside import read
from nemo_ext.rows.outside.read import read_any
from nemo_ext.rows.row import dumps as row_line
from nemo_ext.rows.row import parse_line

ROWS = [
    {"problem": "P1", "expected_answer": 12345678901234567890123},
    {"problem": "P2", "expected_answer": -(2**63) - 1},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_byte_order_mark_and_an_array_are_forms_of_a_file(tmp_path: Path, mark: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(mark + LINES)
    assert list(read_any(path)) == ROWS
    path.write_bytes(mark + json.dumps(ROWS, indent=2).encode())
    assert list(read_any(path)) == ROWS
    path.write_bytes(mark + b"[\n{}, 3]\n")
    assert list(read_any(path)) == [{}, f"{name}: row 2: not a JSON object: it is a int"]


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_with_the_command_that_converts_it(tmp_path: Path, coding: str) -> None:
    path = tmp_path / "x.jsonl"
    mark = "" if coding == "utf-16" else "\ufeff"
    path.write_bytes((mark + LINES.decode()).encode(coding))
    with pytest.raises(ValueError, match=r"x\.jsonl: UTF-16, .*iconv -f UTF-16 -t UTF-8 x\.jsonl"):
        list(read_any(path))


def test_an_array_that_is_cut_off_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(json.dumps(ROWS).encode()[:-2])
    with pytest.raises(ValueError, match=r"x\.json: not a JSON array: .*Is it whole"):
        list(read_any(path))
    monkeypatch.setattr(read, "MAX_ARRAY_BYTES", 10)
    with pytest.raises(ValueError, match=r"Convert it: jq -c '\.\[\]' x\.json"):
        list(read_any(path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), VALUES | st.integers(-(10**400), 10**400)))
def test_what_was_written_is_what_is_read(row: dict) -> None:
    line = row_line(row)
    assert parse_line(line) == row
    assert repr(loads(json.dumps(row))) == repr(row)
    assert json.loads(line) == row


@pytest.mark.parametrize(
    "text", ["NaN", '{"a": 1e999}', '{"a": ' + "1" * 5000 + "}", '{"a": 1' + "0" * 400 + ", NaN]"]
)
def test_what_no_number_is_exact_for_is_no_json(text: str) -> None:
    assert parse_line(text.encode()) is None


@pytest.mark.parametrize("depth", [200, 300, 900, 1000, 1023, 5000])
def test_deep_nesting_is_read_or_refused(depth: int) -> None:
    found = parse_line(b'{"a": ' + b"[" * depth + b"1e30" + b"]" * depth + b"}")
    assert found is None or (depth < 1000 and row_line(found).count(b"[") == depth)


def test_long_numbers_change_nothing_around_them() -> None:
    assert dumps({"b": [2**64, float("nan"), {"c": Path("x")}], "a": "\u00e9"}) == (
        '{"b":[18446744073709551616,null,{"c":"x"}],"a":"\u00e9"}'.encode()
    )
