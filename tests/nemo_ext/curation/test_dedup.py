import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.curation.duplicates.exact import Names, collapsed, first_equal, read_keys, row_key
from nemo_ext.rows.row import dumps


def test_white_space_only_is_ignored() -> None:
    rows = [
        {"problem": "a b", "generation": "c"},
        {"problem": " a  b", "generation": "c\n"},
        {"problem": "a", "generation": "b c"},
        {"problem": "a B", "generation": "c"},
        {"problem": "a b", "generation": "c", "generated_solution": "d"},
        {"problem": "a b", "generation": "e", "generated_solution": "d"},
    ]
    keys = [row_key(row) for row in rows]
    assert keys[0] == keys[1] and keys[4] == keys[5] and len(set(keys)) == 4
    assert row_key(rows[0], ["problem"]) == row_key(rows[4], ["problem"])


def test_columns_do_not_run_together() -> None:
    assert row_key({"a": "x", "b": ""}, ["a", "b"]) != row_key({"a": "", "b": "x"}, ["a", "b"])
    assert row_key({"a": 1}, ["a"]) != row_key({"a": None}, ["a"])
    assert row_key({"a": [1, {"b": "\x00"}]}, ["a"]) == row_key({"a": [1, {"b": "\x00"}]}, ["a"])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_first_equal(pairs: list[tuple[int, int]]) -> None:
    found = first_equal(np.array(pairs, np.uint64).reshape(-1, 2))
    assert found.tolist() == [pairs.index(pair) for pair in pairs]


def test_names_of_rows_over_several_batches() -> None:
    batches = [[b'["a"]', b"[3,1]"], [], [b'["a longer one",2]']]
    names = Names([np.array(batch, "S") for batch in batches])
    assert [names.duplicate_of(row) for row in range(3)] == [
        {"duplicate_of": "a"},
        {"duplicate_of": 3, "duplicate_of_sample": 1},
        {"duplicate_of": "a longer one", "duplicate_of_sample": 2},
    ]


def test_reading_names_and_keys(tmp_path: Path) -> None:
    rows = [{"id": i, "problem": f"p{i % 3}", "sample_index": i} for i in range(9)]
    rows.append({"id": "x" * 10_000, "problem": "\u00e9\x00"})
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(dumps(row) + b"\n" for row in rows))
    keyed = read_keys([path], ["problem"])
    assert first_equal(keyed.keys).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 9]
    names = Names(keyed.names)
    assert names.duplicate_of(4) == {"duplicate_of": 4, "duplicate_of_sample": 4}
    assert names.duplicate_of(9)["duplicate_of"] == "x" * 16
    with pytest.raises(ValueError, match="no row has the column 'problme'"):
        read_keys([path], ["problme"])
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    assert first_equal(read_keys([empty], ["problem"]).keys).tolist() == []


def test_many_keys_at_once() -> None:
    keys = np.random.default_rng(0).integers(0, 1 << 15, (1 << 16, 2), dtype=np.uint64)
    keys[:, 1] = keys[:, 0]
    first = first_equal(keys)
    sample = random.Random(0).sample(range(len(keys)), 200)
    assert all(keys[first[i], 0] == keys[i, 0] and first[first[i]] == first[i] for i in sample)
    assert len(np.unique(keys[:, 0])) == (first == np.arange(len(first))).sum()


@given(st.text(st.sampled_from("ab1 \t\n\r\x0b\x1c\x1f\xa0\u2003\ud800"), max_size=30))
def test_white_space_is_collapsed_as_words_are_split(text: str) -> None:
    assert collapsed(text) == " ".join(text.split()).encode("utf-8", "surrogatepass")
