"""Rows through workers: the same bytes for any number of them and after any kill; broken lines counted, never lost."""

import codecs
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.records.progress import Progress
from nemo_ext.rows.batches import Batch, batches, parts
from nemo_ext.rows.outside.read import read_any
from nemo_ext.rows.passes import map_rows, scan_rows
from nemo_ext.rows.row import MAX_ROW_BYTES, input_files
from nemo_ext.rows.select import select_rows
from nemo_ext.rows.usable import group_key

Row = dict[str, Any]


def odd_out(rows: list[Row], counts: Counter[str]) -> list[tuple[Row, str | None]]:
    counts["seen"] += len(rows)
    return [(row | {"double": 2 * row["n"]}, "odd" if row["n"] % 2 else None) for row in rows]


def make_odd_out(delay_s: float = 0.0) -> Any:
    time.sleep(delay_s)
    return odd_out


def make_sizes() -> Any:
    return lambda rows: np.array([row["n"] for row in rows], np.int64)


def group_sizes(rows: list[Row], counts: Counter[str]) -> list[tuple[Row, str | None]]:
    sizes = Counter(row["id"] for row in rows)
    return [(row | {"size": sizes[row["id"]]}, None) for row in rows]


def make_group_sizes() -> Any:
    return group_sizes


def write(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(count: int, padding: int = 0) -> list[Row]:
    return [{"id": f"r{n}", "problem": f"What is {n}?", "n": n, "pad": "x" * padding} for n in range(count)]


def read(folder: Path, kind: str) -> list[Row]:
    return [
        json.loads(line) for path in sorted(folder.glob(f"{kind}*.jsonl")) for line in path.read_text().splitlines()
    ]


def text(batch: Batch) -> bytes:
    return b"".join(lines for _, lines in batch.pieces())


def test_any_number_of_workers_writes_the_same(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", numbered(9000, 500))
    found = {}
    for workers in (1, 3):
        folder = tmp_path / f"w{workers}"
        mapped = map_rows(folder, [file], make_odd_out, workers=workers, part_bytes=1 << 20)
        assert (mapped.kept, mapped.dropped, mapped.counts) == (4500, {"odd": 4500}, {"seen": 9000})
        assert len(mapped.outputs) == 5 and mapped.outputs == input_files(folder)
        found[workers] = {path.name: path.read_bytes() for path in sorted(folder.glob("*.jsonl"))}
    assert found[1] == found[3]
    assert [row["n"] for row in read(tmp_path / "w3", "output")] == list(range(0, 9000, 2))


def test_shards_share_the_parts(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", numbered(5000, 500))
    seen = []
    for shard in range(2):
        folder = tmp_path / f"s{shard}"
        map_rows(folder, [file], make_odd_out, shard=shard, shards=2, part_bytes=1 << 20)
        seen += [row["n"] for row in read(folder, "output") + read(folder, "dropped")]
    assert sorted(seen) == list(range(5000))
    with pytest.raises(ValueError, match="has 3 parts"):
        map_rows(tmp_path / "s9", [file], make_odd_out, shards=9, part_bytes=1 << 20)


def test_broken_lines_are_counted_with_their_place(tmp_path: Path) -> None:
    good = [json.dumps(row).encode() for row in numbered(3)]
    bad = [
        b"\x00\x00",
        b'{"id": 1, "prob',
        b'{"problem": "\xff"}',
        b"[1]",
        b'{"id": "x"}',
        b'{"problem": 3}',
        b"{" * 9000,
    ]
    huge = b'{"problem": "' + b"y" * (3 * MAX_ROW_BYTES) + b'"}'
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join([good[0], *bad, b"", huge, good[1], good[2]]) + b"\n")
    mapped = map_rows(tmp_path / "out", [path], make_odd_out)
    assert mapped.dropped == {"malformed_json": 5, "no_problem": 2, "row_too_long": 1, "odd": 1}
    assert mapped.total == 11
    for row in read(tmp_path / "out", "dropped"):
        if row["reason"] == "row_too_long":
            with path.open("rb") as handle:
                handle.seek(row["byte"])
                assert handle.read(40) == huge[:40] and len(row["raw"]) <= 200
    assert [row["n"] for row in read(tmp_path / "out", "output")] == [0, 2]


def test_a_broken_line_of_a_stage_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "stage" / "output.jsonl", numbered(2))
    (path.parent / "manifest.json").write_text("{}")
    path.write_bytes(path.read_bytes() + b"torn\n")
    with pytest.raises(ValueError, match=r"output\.jsonl:3: not a JSON object"):
        map_rows(tmp_path / "out", [path], make_odd_out)


def test_other_files_and_other_names(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": f"so\n#### {n},000", "solution": "s", "n": n} for n in range(4)]
    plain = write(tmp_path / "a.jsonl", rows)
    with pa.output_stream(str(tmp_path / "a.jsonl.zst"), compression="zstd") as out:
        out.write(plain.read_bytes())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    outputs = []
    for name in ("a.jsonl", "a.jsonl.zst", "a.parquet"):
        map_rows(tmp_path / "out" / name, [tmp_path / name], make_odd_out)
        outputs.append(read(tmp_path / "out" / name, "output"))
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0][1] | {"id": 0} == {
        "id": 0, "problem": "q2", "generation": "s", "solution": "s", "n": 2, "expected_answer": "2000", "double": 4
    }  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_does_the_rest_and_no_more(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", numbered(60_000, 400))
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path; from nemo_ext.rows.passes import map_rows; from tests.nemo_ext.rows.test_row_map import slowly\n"
        f"map_rows(Path({str(tmp_path / 'out')!r}), [Path({str(file)!r})], slowly, workers=2, part_bytes=2 << 20)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    while not list((tmp_path / "out").glob("parts/00000.json")):
        assert process.poll() is None or (tmp_path / "out" / "parts" / "00000.json").exists()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = (tmp_path / "out" / "output_00000.jsonl").stat().st_mtime_ns
    mapped = map_rows(tmp_path / "out", [file], make_odd_out, part_bytes=2 << 20)
    assert (tmp_path / "out" / "output_00000.jsonl").stat().st_mtime_ns == first, "a finished part was done again"
    map_rows(tmp_path / "whole", [file], make_odd_out, part_bytes=2 << 20)
    assert mapped.total == 60_000 and mapped.counts == {"seen": 60_000}
    for path in (tmp_path / "whole").glob("*.jsonl"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert not list((tmp_path / "out").glob(".*.tmp")) or mapped, "temporaries of the killed run are hidden files"


def slowly() -> Any:
    def function(rows: list[Row], counts: Counter[str]) -> list[tuple[Row, str | None]]:
        time.sleep(0.05)
        return odd_out(rows, counts)

    return function


def test_another_input_starts_anew(tmp_path: Path) -> None:
    map_rows(tmp_path / "out", [write(tmp_path / "a.jsonl", numbered(9000, 500))], make_odd_out, part_bytes=1 << 20)
    map_rows(tmp_path / "out", [write(tmp_path / "b.jsonl", numbered(10))], make_odd_out, part_bytes=1 << 20)
    assert [path.name for path in sorted((tmp_path / "out").glob("*.jsonl"))] == ["dropped.jsonl", "output.jsonl"]


def spoil(path: Path, how: str) -> None:
    before = path.stat()
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7'))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("how", ["gone", "cut", "empty", "edited"])
@pytest.mark.parametrize("kind", ["output", "dropped"])
def test_a_file_that_is_not_what_was_written_is_made_again(tmp_path: Path, kind: str, how: str) -> None:
    file = write(tmp_path / "in.jsonl", numbered(200, padding=100))
    whole = map_rows(tmp_path / "out", [file], make_odd_out, part_bytes=8000)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")}
    inodes = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.jsonl")}
    assert len(whole.outputs) > 2
    spoil(tmp_path / "out" / f"{kind}_00001.jsonl", how)
    again = map_rows(tmp_path / "out", [file], make_odd_out, part_bytes=8000)
    assert again == whole
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")}
    kept = {name for name in files if (tmp_path / "out" / name).stat().st_ino == inodes[name]}
    assert {f"{each}_0000{part}.jsonl" for each in ("output", "dropped") for part in (0, 2)} <= kept, "not the others"


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"kept": 1}', '{"files": {"output": {}}}'])
def test_a_record_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "in.jsonl", numbered(20))
    whole = map_rows(tmp_path / "out", [file], make_odd_out)
    for name in ("00000.json", "plan.json"):
        (tmp_path / "out" / "parts" / name).write_text(text)
        assert map_rows(tmp_path / "out", [file], make_odd_out) == whole


def test_what_it_rests_on_besides_the_rows_starts_it_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", numbered(20))
    map_rows(tmp_path / "out", [file], make_odd_out, rests_on="one judge")
    map_rows(tmp_path / "out", [file], make_sizes_of_batches, rests_on="one judge")
    assert "double" in read(tmp_path / "out", "output")[0], "nothing was left to do"
    map_rows(tmp_path / "out", [file], make_sizes_of_batches, rests_on="another")
    assert read(tmp_path / "out", "output")[0] == {"n": 0, "size": 20}


def make_sizes_of_batches() -> Any:
    return lambda rows, counts: [({"n": row["n"], "size": len(rows)}, None) for row in rows]


def test_another_choice_among_the_same_rows_is_carried_out(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", numbered(4))
    for codes in ([0, 1, 1, 0], [1, 0, 0, 1]):
        select_rows(tmp_path / "out", [file], np.array(codes), ("no",))
        assert [row["n"] for row in read(tmp_path / "out", "output")] == [
            n for n, code in enumerate(codes) if not code
        ]


def test_groups_are_never_cut(tmp_path: Path) -> None:
    rows = [{"id": f"g{n // 7}", "problem": "p", "pad": "x" * 900} for n in range(8000)]
    file = write(tmp_path / "in.jsonl", rows)
    mapped = map_rows(tmp_path / "out", [file], make_group_sizes, group_by=("id",), workers=2, part_bytes=1 << 20)
    assert len(mapped.outputs) > 4
    assert {row["size"] for row in read(tmp_path / "out", "output")} == {7, 8000 % 7}


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=40), part_bytes=st.integers(1, 400))
def test_parts_and_batches_hold_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], part_bytes: int
):
    rows = [{"id": group, "problem": "p" * size} for group, size in enumerate(sizes) for _ in range(size)]
    path = write(tmp_path_factory.mktemp("x") / "in.jsonl", rows)
    key = partial(group_key, ("id",))
    for by in (None, key):
        cut = parts([path], part_bytes, by)
        assert b"".join(text(b) for i, part in enumerate(cut) for b in batches(part, i, by)) == path.read_bytes()
    groups = [{json.loads(line)["id"] for b in batches(part, 0, key) for line in text(b).splitlines()} for part in cut]
    assert sum(map(len, groups)) == len(sizes), "a group is in two parts"


def test_selection_follows_the_scan(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write(path, numbered(5000, 300))
    path.write_bytes(b"broken\n" + path.read_bytes())
    for workers in (1, 2):
        numbers = np.concatenate(list(scan_rows([path], make_sizes, workers=workers)))
        assert numbers.tolist() == list(range(5000))
        codes = np.where(numbers % 3 == 0, 0, numbers % 3)
        folder = tmp_path / f"w{workers}"
        notes = None if workers == 1 else (lambda row: {"row": row})
        mapped = select_rows(folder, [path], codes, ["one", "two"], workers=workers, compact=True, notes=notes)
        assert mapped.dropped == {"one": 1667, "two": 1666, "malformed_json": 1} and mapped.kept == 1667
        assert [row["n"] for row in read(folder, "output")] == list(range(0, 5000, 3))
    dropped = read(tmp_path / "w1", "dropped")
    assert dropped[0] == {"id": "r1", "reason": "one"}
    (broken,) = (row for row in dropped if "raw" in row)
    assert broken == {"file": "in.jsonl", "byte": 0, "raw": "broken", "reason": "malformed_json"}
    assert read(tmp_path / "w2", "dropped")[0] == {"id": "r1", "row": 1, "reason": "one"}
    with pytest.raises(AssertionError, match="codes"):
        select_rows(tmp_path / "w3", [path], codes[:-1], ["one", "two"])


def test_files_without_rows_are_parts_too(tmp_path: Path) -> None:
    """A table of no rows, compressed nothing: neither is zero bytes long."""
    pq.write_table(pa.table({"problem": pa.array([], pa.string())}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl.zst").write_bytes(pa.Codec("zstd").compress(b"", asbytes=True))
    files = [tmp_path / "a.parquet", tmp_path / "b.jsonl.zst", write(tmp_path / "c.jsonl", numbered(4))]
    mapped = map_rows(tmp_path / "out", files, make_odd_out)
    assert (mapped.total, len(mapped.outputs)) == (4, 3) and all(path.is_file() for path in mapped.outputs)


def test_a_person_s_keys_and_byte_order_mark_lose_no_row(tmp_path: Path) -> None:
    rows = [{"problem": "p", "n": n, "__unusable__": "x", "reason": "mine"} for n in range(3)]
    file = write(tmp_path / "in.jsonl", rows)
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    assert map_rows(tmp_path / "out", [file], make_odd_out).total == 3
    assert [row["reason"] for row in read(tmp_path / "out", "output")] == ["mine", "mine"]


def test_text_that_parquet_has_as_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"problem": ["2\u00d73?".encode()], "n": [2]}), tmp_path / "in.parquet")
    map_rows(tmp_path / "out", [tmp_path / "in.parquet"], make_odd_out)
    assert read(tmp_path / "out", "output")[0]["problem"] == "2\u00d73?"


@pytest.mark.parametrize(
    "name", ["cut.jsonl.zst", "not.jsonl.zst", "damaged.parquet", "array.json", "pretty.jsonl", "utf16.jsonl"]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, b"".join(json.dumps(row).encode() + b"\n" for row in numbered(3000, 50))
    if name.startswith("cut"):
        path.write_bytes(pa.Codec("zstd").compress(text, asbytes=True)[:-40])
    elif name.startswith("damaged"):
        pq.write_table(pa.Table.from_pylist(numbered(3000, 50)), path)
        whole = path.read_bytes()
        path.write_bytes(whole[:40] + bytes(200) + whole[240:])
    elif name.startswith("utf16"):
        path.write_bytes(text.decode().encode("utf-16"))
    else:
        path.write_bytes(b"plain" if name.startswith("not") else json.dumps(numbered(3), indent=2).encode())
    with pytest.raises(ValueError, match=rf"{name}: (cut off or damaged|one JSON array|UTF-16, )"):
        map_rows(tmp_path / "out", [path], make_odd_out)


def test_a_small_file_of_endless_blank_lines_is_refused_by_name(tmp_path: Path) -> None:
    row = json.dumps(numbered(1)[0]).encode() + b"\n"
    bomb = tmp_path / "bomb.jsonl.zst"
    with pa.output_stream(str(bomb), compression="zstd") as out:
        out.write(row)
        for _ in range(64):
            out.write(b"\r\n" * (1 << 19))
    assert bomb.stat().st_size < 1 << 16
    with pytest.raises(ValueError, match=r"bomb\.jsonl\.zst: more than 8 MiB of blank lines in a row, up to byte 10,"):
        map_rows(tmp_path / "out", [bomb], make_odd_out)
    with pytest.raises(ValueError, match=r"bomb\.jsonl\.zst: more than 8 MiB of blank lines"):
        list(read_any(bomb))


def test_progress_counts_what_a_compressed_file_unpacks_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few KB that unpack to 18 MiB are read; a few blank lines are no reason to refuse."""
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(Progress, "update", lambda self, done, total, **info: shown.append(info))
    row, path = json.dumps(numbered(1)[0]).encode() + b"\n", tmp_path / "rows.jsonl.zst"
    path.write_bytes(pa.Codec("zstd").compress((row + b"\n" * (6 << 20)) * 3, asbytes=True))
    assert map_rows(tmp_path / "out", [path], make_odd_out).total == 3
    unpacked = [each["unpacked_MiB"] for each in shown if "unpacked_MiB" in each]
    assert unpacked == sorted(unpacked) and unpacked[-1] >= 17 and shown[-1]["rows"] == 3


def test_rows_are_not_written_over_themselves(tmp_path: Path) -> None:
    file = write(tmp_path / "mine" / "output.jsonl", numbered(5))
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    before = file.read_bytes()
    with pytest.raises(ValueError, match="both input and output"):
        map_rows(tmp_path / "link", [file], make_odd_out)
    assert file.read_bytes() == before


def test_what_a_killed_run_had_begun_is_removed(tmp_path: Path) -> None:
    (tmp_path / "out" / "parts").mkdir(parents=True)
    for name in (".output.jsonl.abc.tmp", "parts/.00000.json.abc.tmp"):
        (tmp_path / "out" / name).write_text("half")
    map_rows(tmp_path / "out", [write(tmp_path / "in.jsonl", numbered(3))], make_odd_out)
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_that_cannot_be_had(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match=rf"workers={workers}; it must be 1 or more"):
        map_rows(tmp_path / "out", [write(tmp_path / "in.jsonl", numbered(3))], make_odd_out, workers=workers)
