"""Benchmark files of others: what is wrong in them is said with file and line, and with what would be right."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

GOOD = json.dumps({"problem": "P", "answer": 1}).encode()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"prompt": "P", "target": 1}', r"no_problem: the row has the columns prompt, target; understood are the problem as `problem` or `question`; the answer as"),
        (b"{}", r"no_problem: the row has the columns \(none\)"),
        (b'{"problem": null, "answer": 1}', "no_problem"),
        (b'{"problem": "Prove it.", "proof": "..."}', r"no_answer: the row has the columns problem, proof; .* Decontamination needs no answers: require_answers=false"),
        (GOOD[:-4], "not a JSON object on a line of its own: unexpected end of data"),
        (b'{"problem": "\xff", "answer": 1}', "not a JSON object on a line of its own: .*UTF-8"),
        (b"\0" * 20, "not a JSON object on a line of its own"),
        (b"[", "not a JSON object on a line of its own"),
        (b"[1]", "not a JSON object on a line of its own: it is a list"),
        (b'{"problem": "' + b"x" * (9 << 20) + b'"}', r"9,4\d\d,\d\d\d bytes, and a row may have 8,388,608"),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused_with_its_number(run, tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "new.jsonl"
    path.write_bytes(GOOD + b"\n\n" + line + b"\n" + GOOD)
    with pytest.raises(ValueError, match=rf"benchmark new: {path}: line 3, row 2: {said}") as refusal:
        run("prepare_benchmarks", benchmarks={"new": {"path": str(path)}})
    assert len(str(refusal.value)) < 700
    assert not (tmp_path / "out" / "output.jsonl").exists()


def test_every_kind_of_file(run, tmp_path: Path) -> None:
    table = [{"question": f"Q{i}", "answer": f"#### {i}", "id": i} for i in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in table)
    (tmp_path / "a.jsonl").write_text(text)
    with pa.output_stream(str(tmp_path / "b.jsonl.zst"), compression="zstd") as handle:
        handle.write(text.encode())
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "c.parquet")
    files = {"a": "a.jsonl", "b": "b.jsonl.zst", "c": "c.parquet"}
    ran = run("prepare_benchmarks", benchmarks={name: {"path": str(tmp_path / file)} for name, file in files.items()})
    assert [(row["benchmark"], row["id"], row["problem"], row["expected_answer"]) for row in ran.output] == [
        (name, str(i), f"Q{i}", str(i)) for name in files for i in range(3)
    ]


@pytest.mark.parametrize("row", [{"prompt": "P"}, {"problem": "P"}])
def test_a_parquet_file_of_other_columns(run, tmp_path: Path, row: dict[str, str]) -> None:
    pq.write_table(
        pa.Table.from_pylist([{"problem": "P", "answer": "1", "prompt": None}, row]), tmp_path / "c.parquet"
    )
    with pytest.raises(ValueError, match=r"c\.parquet: row 2: no_.*: the row has the columns problem, answer, prompt"):
        run("prepare_benchmarks", benchmarks={"c": {"path": str(tmp_path / "c.parquet")}})


def test_without_answers(run, tmp_path: Path) -> None:
    """To be looked for a problem needs no answer; what answers there are stay."""
    rows = [
        {"problem": " Prove it. ", "solution": "By induction."},
        {"question": "2+2?", "answer": 4.0},
        {"question": "Why?", "id": 7},
    ]
    path = tmp_path / "proofs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = run("prepare_benchmarks", benchmarks={"proofs": {"path": str(path)}}, require_answers=False)
    assert [(row["problem"], row["expected_answer"]) for row in ran.output] == [
        ("Prove it.", None),
        ("2+2?", "4"),
        ("Why?", None),
    ]
    assert ran.output[2]["id"] == "7" and len(ran.output[0]["id"]) == 16
    with pytest.raises(ValueError, match=r"line 1, row 1: no_answer"):
        run("prepare_benchmarks", benchmarks={"proofs": {"path": str(path)}}, folder="strict")


def test_an_empty_file_among_others(run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").write_bytes(b"\n")
    paths = {name: {"path": str(tmp_path / f"{name}.jsonl")} for name in ("a", "b")}
    with pytest.raises(ValueError, match=r"benchmark b: .*b\.jsonl has no problems: the file is empty"):
        run("prepare_benchmarks", benchmarks=paths)


def test_a_damaged_file_is_named(run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(b"not compressed")
    with pytest.raises(ValueError, match=r"a\.jsonl\.zst: cut off or damaged"):
        run("prepare_benchmarks", benchmarks={"a": {"path": str(tmp_path / "a.jsonl.zst")}})


def _write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_ids_tell_problems_apart(run, tmp_path: Path) -> None:
    twice = [{"problem": "P", "answer": 1}, {"problem": "Q", "answer": 2}, {"problem": "P", "answer": 1}]
    ran = run("prepare_benchmarks", benchmarks={"a": {"path": _write(tmp_path / "a.jsonl", twice)}})
    ids = [row["id"] for row in ran.output]
    assert ids[2] == f"{ids[0]}-2" and len(set(ids)) == 3
    given = _write(tmp_path / "b.jsonl", [row | {"id": 7} for row in twice[:2]])
    with pytest.raises(ValueError, match=r"b\.jsonl: line 2, row 2: the id '7' is also that of .*line 1, row 1"):
        run("prepare_benchmarks", benchmarks={"b": {"path": given}}, folder="b")
    ran = run("prepare_benchmarks", benchmarks={"b": {"path": given, "columns": {"id": None}}}, folder="c")
    assert len({row["id"] for row in ran.output}) == 2


def test_another_count_or_hash_is_refused_with_what_was_found(run, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"problem": "P", "answer": i} for i in range(3)])
    found = run("prepare_benchmarks", benchmarks={"a": {"path": path}}).manifest["figures"]["a.content_hash"]
    run("prepare_benchmarks", benchmarks={"a": {"path": path, "content_hash": found, "num_rows": 3}}, folder="pinned")
    with pytest.raises(ValueError, match=r"a\.jsonl has 3 problems, but conf/benchmark says 4"):
        run("prepare_benchmarks", benchmarks={"a": {"path": path, "num_rows": 4}}, folder="more")
    with pytest.raises(
        ValueError, match=f"hash to {found}, but conf/benchmark says {'0' * 64}: it is another version"
    ):
        run("prepare_benchmarks", benchmarks={"a": {"path": path, "content_hash": "0" * 64}}, folder="other")


def test_a_set_by_rule(run, tmp_path: Path) -> None:
    """Two sets of one file, as numina_math_l4 and numina_math_l5 are; what they keep is counted, not what the file has."""
    rows = [
        {"problem": f"{i} at {level}", "level": f"Level {level}", "type": "Algebra", "solution": rf"\boxed{{{i}}}"}
        for level in (3, 4, 5)
        for i in ("1", "2.5", "-7", r"\frac12")[: level - 1]
    ]
    path = _write(tmp_path / "test.jsonl", rows)
    sets = {
        f"l{level}": {
            "path": path, "columns": {"subject": "type", "answer": None}, "keep": {"level": level, "answer": "integer"},
            "num_rows": 2 if level > 3 else 1, "answer_type": "integer",
        }
        for level in (3, 4, 5)
    }  # fmt: skip
    ran = run("prepare_benchmarks", benchmarks=sets)
    assert [(row["benchmark"], row["level"], row["expected_answer"]) for row in ran.output] == [
        ("l3", 3, "1"), ("l4", 4, "1"), ("l4", 4, "-7"), ("l5", 5, "1"), ("l5", 5, "-7"),
    ]  # fmt: skip
    assert len(ran.manifest["inputs"]) == 1
    none = {"l1": {"path": path, "keep": {"level": 1}}}
    with pytest.raises(ValueError, match=r"has no problems: none is kept by keep=\{'level': 1\}"):
        run("prepare_benchmarks", benchmarks=none, folder="none")
