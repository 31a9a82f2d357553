"""Samples of a problem brought together on disk."""

import json
from pathlib import Path
from typing import Any

from nemo_ext.rows import grouping
from nemo_ext.rows.grouping import GROUP, grouped, is_grouped
from nemo_ext.rows.passes import map_rows
from tests.nemo_ext.rows.test_row_map import make_group_sizes, read, write


def seeds(tmp_path: Path, problems: int, runs: int) -> list[Path]:
    """A file per seed, as NeMo-Skills writes them; no ids."""
    return [
        write(tmp_path / f"output-rs{seed}.jsonl", [{"problem": f"p{n}", "seed": seed} for n in range(problems)])
        for seed in range(runs)
    ]


def test_adjacent_rows_are_left_where_they_are(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"id": n // 3, "problem": "p"} for n in range(30)])
    with grouped([file], tmp_path / "out") as files:
        assert files == [file]


def test_one_id_for_two_problems_is_two_groups(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"id": 1, "problem": f"p{n // 2}"} for n in range(4)])
    assert is_grouped([file])
    map_rows(tmp_path / "out", [file], make_group_sizes, group_by=GROUP)


def test_a_group_that_goes_on_in_the_next_file_is_not_grouped(tmp_path: Path) -> None:
    files = [write(tmp_path / name, [{"id": 1, "problem": "p"}]) for name in ("a.jsonl", "b.jsonl")]
    assert not is_grouped(files)


def test_seed_files_are_brought_together(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(grouping, "BUCKET_BYTES", 2000)
    files = seeds(tmp_path / "in", 50, 4)
    files[1].write_bytes(files[1].read_bytes() + b"torn")
    results = []
    for workers in (1, 2):
        folder = tmp_path / f"w{workers}"
        with grouped(files, folder, workers=workers) as together:
            assert len(together) > 1
            mapped = map_rows(folder, together, make_group_sizes, group_by=GROUP, workers=workers)
        assert not (folder / "grouped").exists()
        assert mapped.kept == 200 and mapped.dropped == {"malformed_json": 1}
        rows = read(folder, "output")
        assert {row["size"] for row in rows} == {4}
        assert [row["seed"] for row in rows[:4]] == [0, 1, 2, 3], "samples keep their order"
        assert read(folder, "dropped")[0]["file"] == "output-rs1.jsonl", "the file it came from, not the bucket"
        results.append([(path.name, path.read_bytes()) for path in sorted(folder.glob("*.jsonl"))])
    assert results[0] == results[1]


def test_buckets_of_a_killed_run_are_taken_up(tmp_path: Path) -> None:
    files, folder = seeds(tmp_path / "in", 20, 2), tmp_path / "out"
    try:
        with grouped(files, folder) as first:
            written = {path: path.stat().st_mtime_ns for path in first}
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    with grouped(files, folder) as again:
        assert {path: path.stat().st_mtime_ns for path in again} == written
    try:
        with grouped(files, folder) as spoilt:
            before = spoilt[0].read_bytes()
            spoilt[0].write_bytes(before.replace(b"p1", b"p2"))
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    with grouped(files, folder) as mended:
        assert mended[0].read_bytes() == before
    (folder / "grouped").mkdir()
    (folder / "grouped" / "00000.jsonl").write_text(json.dumps({"id": 9, "problem": "half written"}) + "\n")
    with grouped(files, folder) as anew:
        assert b"half written" not in anew[0].read_bytes()
