import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.rows import row
from nemo_ext.rows.outside.read import read_any
from nemo_ext.rows.row import RowWriter, read_rows

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5))
def test_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, data: list[dict]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    with RowWriter(folder) as out:
        for row in data:
            out.keep(row)
    back = list(read_rows(folder / "output.jsonl"))
    assert back == data
    assert [list(row) for row in back] == [list(row) for row in data], "keys keep their order"


def test_a_dropped_row_has_its_reason_and_counts(tmp_path: Path) -> None:
    with RowWriter(tmp_path) as out:
        out.keep({"id": 1})
        out.drop({"id": 2, "reason": "older"}, "short")
        out.drop({"id": 3}, "short")
    assert list(read_rows(tmp_path / "dropped.jsonl")) == [{"id": 2, "reason": "short"}, {"id": 3, "reason": "short"}]
    assert (out.kept, out.dropped, out.total) == (1, Counter(short=2), 3)


def test_files_appear_only_when_all_is_there(tmp_path: Path) -> None:
    (tmp_path / "output.jsonl").write_text('{"old": 1}\n')
    with pytest.raises(KeyError), RowWriter(tmp_path) as out:  # noqa: PT012
        out.keep({"new": 1})
        out.drop({"new": 2}, "x")
        assert (tmp_path / "output.jsonl").read_text() == '{"old": 1}\n'
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["output.jsonl"]
    assert (tmp_path / "output.jsonl").read_text() == '{"old": 1}\n'


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', "", "nul\x00l"])
def test_own_files_must_be_whole(tmp_path: Path, line: str) -> None:
    path = tmp_path / "output.jsonl"
    path.write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"output\.jsonl:2: not a JSON object"):
        list(read_rows(path))


def test_foreign_lines_are_yielded_as_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": \n[1]\n\xff\xfe\n{"a": 2}')
    found = list(read_any(path))
    assert found[0] == {"a": 1} and found[-1] == {"a": 2} and len(found) == 5
    assert [text.partition(": not")[0] for text in found[1:-1] if isinstance(text, str)] == [
        "x.jsonl: line 3, row 2",
        "x.jsonl: line 4, row 3",
        "x.jsonl: line 5, row 4",
    ]


def test_an_empty_foreign_object_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert list(read_any(tmp_path / "x.jsonl")) == [{}]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    data = [{"problem": f"p{i}", "n": i} for i in range(5000)]
    pq.write_table(pa.Table.from_pylist(data), path)
    assert list(read_any(path)) == data
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"x\.parquet: not a readable parquet"):
        list(read_any(path))


def test_foreign_files_are_named_in_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file: .*none\.jsonl \(looked from "):
        list(read_any(tmp_path / "none.jsonl"))
    (tmp_path / "x.csv").touch()
    with pytest.raises(ValueError, match=r"x\.csv: expected a file that ends in \.jsonl, "):
        list(read_any(tmp_path / "x.csv"))


def test_input_files_are_a_stage_s_or_its_tasks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has that stage run"):
        row.input_files(tmp_path)
    for part in ("shard_1", "shard_0"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "output.jsonl").touch()
        (tmp_path / part / "dropped.jsonl").touch()
    assert [path.parent.name for path in row.input_files(tmp_path)] == ["shard_0", "shard_1"]
    one = tmp_path / "shard_0" / "output.jsonl"
    assert row.input_files(one) == row.input_files(str(one)) == [one]
    with pytest.raises(ValueError, match="no such file"):
        row.input_files(tmp_path / "none")


@given(st.text(), st.integers(1, 40))
def test_a_row_is_in_exactly_one_shard(row_id: str, shards: int) -> None:
    assert sum(row.in_shard(row_id, shard, shards) for shard in range(shards)) == 1


def test_shards_are_about_equal() -> None:
    sizes = Counter(next(s for s in range(8) if row.in_shard(str(i), s, 8)) for i in range(4000))
    assert min(sizes.values()) > 400 and max(sizes.values()) < 600


def test_ids_depend_on_every_part() -> None:
    assert row.content_id("a", "b") != row.content_id("ab") != row.content_id("a", "")
    assert row.content_id("x") == "2d711642b726b044"


def test_no_row_left_says_where_and_why() -> None:
    row.require_rows(1, "filter", Counter())
    with pytest.raises(ValueError, match=r"filter: no row is left.*'incorrect': 3"):
        row.require_rows(0, "filter", Counter(incorrect=3))
    with pytest.raises(ValueError, match="the input was empty"):
        row.require_rows(0, "filter", Counter())


def test_lines_are_json(tmp_path: Path) -> None:
    assert json.loads(row.dumps({"a": "é\n"})) == {"a": "é\n"} and b"\n" not in row.dumps({"a": "\n"})
