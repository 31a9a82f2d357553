"""Which files a stage is given, and columns that would do nothing."""

import json
from pathlib import Path

import pytest

from nemo_ext.rows.grouping import GROUP, grouped
from nemo_ext.rows.part_files import Mapped
from nemo_ext.rows.passes import map_rows
from nemo_ext.rows.row_input import RowFiles, row_files
from tests.nemo_ext.rows.test_row_map import make_group_sizes, read, write


def test_a_split_of_a_folder(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        write(tmp_path / name, [{"problem": name}])
    files = row_files("grade", [str(tmp_path)], "test", None, tmp_path)
    assert list(files) == [tmp_path / "test.jsonl"] and all("test" in pattern for pattern in files.listed)
    with pytest.raises(ValueError, match="no files of the split 'dev'.*test.jsonl, train.jsonl"):
        row_files("grade", [str(tmp_path)], "dev", None, tmp_path)
    with pytest.raises(ValueError, match="split=train says which files of a folder are meant"):
        row_files("grade", [str(tmp_path / "train.jsonl")], "train", None, tmp_path)


def test_columns_that_no_row_has_are_refused_with_those_there_are(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"query": "P", "reply": "A"}, {"query": "P", "n": 1}])
    with pytest.raises(
        ValueError, match=r"grade\.columns: problem: ask; none of the first .* has 'ask'. They have n, query, reply"
    ):
        row_files("grade", [str(file)], None, {"problem": "ask"}, tmp_path)
    with pytest.raises(ValueError, match=r"has 'more'\. They have"):
        row_files("grade", [str(file)], None, {"problem": ["query", "more"]}, tmp_path)
    with pytest.raises(ValueError, match=r"stages\.grade\.columns: problem: 3; it may be a column's name"):
        row_files("grade", [str(file)], None, {"problem": 3}, tmp_path)
    assert row_files("grade", [str(file)], None, {"problem": "query", "hint": None}, tmp_path).columns


def test_columns_for_a_stage_s_own_rows_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "output.jsonl", [{"problem": "P"}])
    (tmp_path / "manifest.json").touch()
    with pytest.raises(ValueError, match=r"output.jsonl is a stage's own file.*Leave columns out"):
        row_files("vote", [str(file)], None, {"problem": "query"}, tmp_path)


def test_a_slice_keeps_the_columns(tmp_path: Path) -> None:
    files = RowFiles((tmp_path / "a", tmp_path / "b"), {"problem": "query"})
    assert files[1:] == RowFiles((tmp_path / "b",), {"problem": "query"}) and files[0] == tmp_path / "a"


def test_other_columns_make_the_parts_again(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [{"a": "A", "b": "B"}] * 3)

    def problems(column: str) -> list[str]:
        map_rows(tmp_path / "out", RowFiles((file,), {"problem": column}), make_group_sizes)
        return [row["problem"] for row in read(tmp_path / "out", "output")]

    assert [problems("a"), problems("b")] == [["A"] * 3, ["B"] * 3]


def scattered(tmp_path: Path) -> Path:
    rows = [{"ask": f"p{n}", "reply": f"{seed}", "problem": "never taken"} for seed in range(3) for n in range(4)]
    talk = [
        {
            "ask": None,
            "reply": None,
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": str(n)}],
        }
        for n in range(2)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [talk[0], *rows, talk[1]]) + "torn\n")
    return path


def group(tmp_path: Path, files: RowFiles) -> Mapped:
    with grouped(files, tmp_path / "out") as together:
        assert not isinstance(together, RowFiles), "these are not where they should be"
        return map_rows(tmp_path / "out", together, make_group_sizes, group_by=GROUP)


def test_samples_under_other_names_are_brought_together(tmp_path: Path) -> None:
    files = RowFiles((scattered(tmp_path),), {"problem": "ask", "generation": "reply"})
    mapped = group(tmp_path, files)
    assert mapped.dropped == {"malformed_json": 1} and mapped.layouts == {"problem + generation": 12, "messages": 2}
    sizes = {row["problem"]: row["size"] for row in read(tmp_path / "out", "output")}
    assert sizes == {"p0": 3, "p1": 3, "p2": 3, "p3": 3, "q": 2}


def test_samples_together_under_other_names_are_one_group_over_batches(tmp_path: Path) -> None:
    rows = [{"ask": f"p{n // 4}", "problem": str(n), "id": n, "pad": "x" * 300_000} for n in range(12)]
    file = write(tmp_path / "rows.jsonl", rows)
    with grouped(RowFiles((file,), {"problem": "ask", "id": None}), tmp_path / "out") as files:
        map_rows(tmp_path / "out", files, make_group_sizes, group_by=GROUP)
    assert {row["size"] for row in read(tmp_path / "out", "output")} == {4}
