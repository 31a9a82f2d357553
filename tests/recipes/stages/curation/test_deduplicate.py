import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

PENS = "Ava has 12 pens. She buys 3 boxes of 4 pens each and gives 5 pens to her brother. How many pens does Ava have now?"


def row(row_id: str, problem: str, solution: str, **more: Any) -> dict[str, Any]:
    return {"id": row_id, "problem": problem, "generation": f"raw {row_id}", "generated_solution": solution, **more}


def test_the_first_stays_and_the_others_say_of_what_they_are_copies(run, rows) -> None:
    data = [
        row("1", "p", "s", sample_index=0),
        row("2", "p", "other"),
        row("3", " p", "s\n"),
        row("4", "P", "s"),
        row("5", "p", "s"),
    ]
    ran = run("deduplicate", input=rows(data))
    assert ran.output == [data[0], data[1], data[3]], "as they were"
    expected = {"duplicate_of": "1", "duplicate_of_sample": 0, "reason": "duplicate"}
    assert ran.dropped == [data[2] | expected, data[4] | expected]
    assert ran.manifest["rows_in"] == 5 and ran.manifest["dropped"] == {"duplicate": 2}


def test_near_duplicates_go_with_all_their_samples(run, rows) -> None:
    data = [
        row("a", PENS, "1"),
        row("b", PENS.upper(), "2"),
        row("a", PENS, "3"),
        row("a", PENS, "1"),
        row("c", PENS.replace("12", "13"), "4"),
        row("b", PENS.upper(), "5"),
        row("d", PENS.replace("boxes", "cases"), "6"),
    ]
    ran = run("deduplicate", input=rows(data), near=True)
    assert [r["generated_solution"] for r in ran.output] == ["1", "3", "4"]
    told = [(r["generated_solution"], r["reason"], r["duplicate_of"]) for r in ran.dropped]
    assert told == [
        ("2", "near_duplicate", "a"),
        ("1", "duplicate", "a"),
        ("5", "near_duplicate", "a"),
        ("6", "near_duplicate", "a"),
    ]
    assert ran.dropped[0]["similarity"] == 1.0 and 0.8 <= ran.dropped[3]["similarity"] < 1
    assert ran.manifest["figures"]["problems_compared"] >= 2
    strict = run("deduplicate", input=rows(data), near=True, threshold=1.0, folder="strict")
    assert strict.reasons == ["near_duplicate", "duplicate", "near_duplicate"]


def test_columns(run, rows) -> None:
    data = [{"id": i, "problem": f"p{i}", "key": {"a": [i % 2]}} for i in range(4)]
    assert [r["id"] for r in run("deduplicate", input=rows(data), by=["key"]).output] == [0, 1]
    assert len(run("deduplicate", input=rows(data), folder="problems").output) == 4, "of problems alone, too"
    with pytest.raises(ValueError, match="no row has the column 'kee'; duplicates are rows that agree on kee"):
        run("deduplicate", input=rows(data), by=["kee"], folder="wrong")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"by": []}, "by is empty"),
        ({"threshold": 0.2}, r"threshold=0.2; it must be in \[0.5, 1\]"),
        ({"shards": 2}, "shards=2"),
    ],
)
def test_what_cannot_work_is_refused(run, keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("deduplicate", input="x", **keys)


def test_same_bytes_with_one_worker_and_four(run, rows) -> None:
    texts = [
        PENS.replace("12", str(i % 50)).replace("brother", ["brother", "sister", "uncle"][i % 3]) for i in range(1500)
    ]
    data = [row(str(i), text, str(i % 400), filler="x" * 1500) for i, text in enumerate(texts)]
    source = rows(data)
    one, four = (run("deduplicate", input=source, near=True, workers=n, folder=f"w{n}") for n in (1, 4))
    for name in ("output.jsonl", "dropped.jsonl"):
        assert (one.folder / name).read_bytes() == (four.folder / name).read_bytes()
    assert set(Counter(one.reasons)) == {"duplicate", "near_duplicate"}


def test_a_person_s_file_with_broken_lines(run, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    good = {"question": "What is it?", "solution": "5"}
    lines = [
        json.dumps(good),
        "{cut",
        json.dumps(good),
        "\x00",
        json.dumps({"problem": None}),
        json.dumps(good | {"solution": 7}),
    ]
    path.write_text("\n".join(lines))
    ran = run("deduplicate", input=str(path), near=True)
    assert len(ran.output) == 2 and Counter(ran.reasons) == {"malformed_json": 2, "duplicate": 1, "no_problem": 1}


def test_under_another_system_turn_or_with_other_tools_it_is_another_row(run, rows) -> None:
    """It is trained with them."""
    others = [
        {},
        {"system": "Be brief."},
        {"system": "Be long."},
        {"system_prompt": "Be brief."},
        {"tools": [{"name": "a"}]},
    ]
    others += [{"tools": [{"name": "b"}]}, {"system": None, "tools": []}, {"system": " Be  brief."}]
    data = [row(str(number), "p", "s", **keys) for number, keys in enumerate(others)]
    ran = run("deduplicate", input=rows(data))
    assert [each["id"] for each in ran.output] == ["0", "1", "2", "3", "4", "5"]
    assert [(each["id"], each["duplicate_of"]) for each in ran.dropped] == [("6", "0"), ("7", "1")]
    asked = run("deduplicate", "problems", input=rows(data), by=["problem"])
    assert [each["id"] for each in asked.output] == ["0", "1", "2", "3", "4", "5"]
    said = run("deduplicate", "solutions", input=rows(data), by=["generated_solution"])
    assert [each["id"] for each in said.output] == ["0"]


def test_traces_are_duplicates_whatever_they_ran(run, rows) -> None:
    """`trace` says how a solution came about, and not under which tools the problem was asked."""
    record = {"executions": 1, "errors": {}, "ended": "answer"}
    first = {"id": "a", "problem": "P", "generation": "S", "sample_index": 0, "trace": record}
    ran = run("deduplicate", input=rows([first, first | {"sample_index": 1, "trace": record | {"executions": 2}}]))
    assert len(ran.output) == 1
