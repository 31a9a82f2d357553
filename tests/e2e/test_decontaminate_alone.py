"""+recipe=decontaminate: a person's own data, any file of benchmark problems, one command, no server."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launchers.planning import plan
from tests.composing import compose_recipe
from tests.recipes.conftest import lines

Finish = Callable[..., str]
RULE = "stages.decontaminate.judge=rule"
PENS = "Ava has {} pens and buys 3 boxes of 4 pens. How many pens has Ava?"
DATA = [{"question": PENS.format(i), "generated_solution": "...", "mine": i} for i in range(20)]


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Released later than the data: problems to prove, so without answers."""
    path = tmp_path / "olympiad_2027.jsonl"
    problems = [PENS.replace("Ava", "Zoe").format(7), "Prove that there are infinitely many primes."]
    path.write_text("".join(json.dumps({"problem": text}) + "\n" for text in problems))
    return path


def test_a_file_against_a_new_benchmark_then_its_output_again(finish: Finish, benchmark: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_pylist(DATA), data)
    said = finish("+recipe=decontaminate", f"input={data}", f"benchmarks=[{benchmark}]")
    out = tmp_path / "decontaminate" / "decontaminate"
    assert "1 contaminated_olympiad_2027" in said and f"table {out / 'audit.md'}" in said
    assert [row["mine"] for row in lines(out / "output.jsonl")] == [i for i in range(20) if i != 7]
    (found,) = lines(out / "contaminated.jsonl")
    assert (found["problem"], found["benchmark"], found["method"]) == (PENS.format(7), "olympiad_2027", "rule")
    again = ["run_name=audit", "stages.decontaminate.mode=audit", RULE]
    finish("+recipe=decontaminate", *again, f"input={out}", f"benchmarks=[{benchmark}]")
    audit = (tmp_path / "audit" / "decontaminate" / "audit.md").read_text()
    assert "19 different problems (19 rows)" in audit and "0 are contaminated" in audit


def test_at_tiny_scale_against_benchmarks_by_name(finish: Finish, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in DATA) + "cut off {\n")
    said = finish("+recipe=decontaminate", "+scale=tiny", f"input={rows}")
    assert "1 malformed_json" in said
    assert "toy_gsm8k" in (tmp_path / "decontaminate_tiny" / "decontaminate" / "audit.md").read_text()


def test_what_is_wrong_is_said_in_a_line(finish: Finish, benchmark: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "Find 3.", "target": "3"}\n')
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(DATA[0]))
    said = " ".join(finish("+recipe=decontaminate", RULE, f"input={rows}", f"benchmarks=[{other}]", code=1).split())
    assert f"benchmark other: {other}: line 1, row 1: no_problem: the row has the columns prompt, target" in said
    for word, message in (
        ("stages.decontaminate.mode=delete", r"mode='delete'; it may be one of \('drop', 'mark', 'audit'\)"),
        ("stages.decontaminate.retrieval=[dense]", "encoder is not set"),
    ):
        with pytest.raises(ValueError, match=message):
            plan.resolve(compose_recipe("decontaminate", RULE, word, f"benchmarks=[{benchmark}]"), tmp_path)
