"""prepare_problems and prepare_benchmarks: files of others, with what is wrong in them."""

import json
from pathlib import Path

import pytest

GOOD = {"question": "How many?", "answer": "1+1=<<1+1=2>>2\n#### 2"}


def test_bad_rows_are_dropped_with_a_reason(run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "\n".join([json.dumps(GOOD), '{"question": "How', "[1]", json.dumps({"answer": "#### 2"}), json.dumps(GOOD),
                   json.dumps({"problem": "No answer"})])
    )  # fmt: skip
    (tmp_path / "b.jsonl").write_text(json.dumps({"problem": "Solve.", "solution": r"\boxed{3}"}))
    ran = run(
        "prepare_problems",
        sources={"gsm8k": {"path": str(tmp_path / "a.jsonl")}, "math": {"path": str(tmp_path / "b.jsonl")}},
    )
    assert [(r["problem"], r["expected_answer"], r["problem_source"]) for r in ran.output] == [
        ("How many?", "2", "gsm8k"),
        ("Solve.", "3", "math"),
    ]
    assert ran.reasons == ["malformed_json", "malformed_json", "no_problem", "duplicate_problem", "no_answer"]
    assert ran.dropped[0]["line"].startswith("a.jsonl: line 2, row 2: ")
    assert (ran.manifest["rows_in"], ran.manifest["rows_out"]) == (7, 2)
    assert ran.manifest["dropped"] == {"duplicate_problem": 1, "malformed_json": 2, "no_answer": 1, "no_problem": 1}


def test_the_recipe_s_source_wins(run, tmp_path: Path) -> None:
    """by_source of the next stage is keyed by it."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "P", "answer": 1, "problem_source": "elsewhere"}))
    assert (
        run("prepare_problems", sources={"math": {"path": str(tmp_path / "a.jsonl")}}).output[0]["problem_source"]
        == "math"
    )


def test_a_missing_or_empty_file(run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file: .*none\.jsonl"):
        run("prepare_problems", sources={"math": {"path": str(tmp_path / "none.jsonl")}})
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="no row is left.*input was empty"):
        run("prepare_problems", sources={"math": {"path": str(tmp_path / "empty.jsonl")}})
    assert not (tmp_path / "out" / "_DONE").exists() and not (tmp_path / "out" / "output.jsonl").exists()


def test_toy_seeds_are_counted(run) -> None:
    ran = run("prepare_problems", sources={"gsm8k": {"path": "toy://seeds/gsm8k?num_rows=20&contaminated=3"}})
    assert len(ran.output) + len(ran.dropped) == 23
    assert sum("contaminates" in row for row in ran.output) == 3


def test_gsm8k(run, shared_data: Path) -> None:
    ran = run("prepare_problems", sources={"gsm8k": {"path": str(shared_data / "gsm8k_train.jsonl")}})
    assert len(ran.output) + len(ran.dropped) == 7473
    assert set(ran.reasons) <= {"duplicate_problem"} and len(ran.output) > 7400


def test_a_benchmark_must_have_its_size(run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "P", "answer": 27.0}) + "\n")
    settings = {"path": str(tmp_path / "a.jsonl"), "num_rows": 1}
    ran = run("prepare_benchmarks", benchmarks={"amc23": settings})
    assert [(r["benchmark"], r["expected_answer"]) for r in ran.output] == [("amc23", "27")]
    assert isinstance(ran.output[0]["id"], str)
    with pytest.raises(ValueError, match=r"benchmark amc23: .* has 1 problems, but conf/benchmark says 40"):
        run("prepare_benchmarks", benchmarks={"amc23": settings | {"num_rows": 40}}, folder="other")


@pytest.mark.parametrize(
    ("line", "said"), [("{", "not a JSON object"), ('{"answer": 1}', "no_problem"), ('{"problem": "P"}', "no_answer")]
)
def test_a_bad_benchmark_line_is_an_error(run, tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "P", "answer": 1}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=f"benchmark x: .*row 2: {said}"):
        run("prepare_benchmarks", benchmarks={"x": {"path": str(tmp_path / "a.jsonl")}})


def test_real_benchmarks(run, shared_data: Path) -> None:
    sizes = {"aime24": 30, "amc23": 40, "math500": 500}
    ran = run(
        "prepare_benchmarks",
        benchmarks={n: {"path": str(shared_data / f"{n}_test.jsonl"), "num_rows": c} for n, c in sizes.items()},
    )
    assert len({(row["benchmark"], row["id"]) for row in ran.output}) == len(ran.output) == 570
