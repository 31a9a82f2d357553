"""TabMWP and Algebra222 in the forms they are published in: rows by id with tables and options, and CSV."""

import json
from pathlib import Path
from typing import Any

import pytest

from launchers.planning import resolvers
from nemo_ext.grading.equal import equal
from nemo_ext.problems.benchmark import Benchmark, check_settings, content_hash, problem_of
from nemo_ext.problems.benchmark_files import benchmark_files, read_benchmark
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.row import Row

SHOP = {
    "question": "Luke buys 3 pounds of figs. What does he pay?", "choices": None, "answer": "1,107.50", "unit": "$",
    "table_title": "Prices", "table": "figs | $369.17/lb\nnuts | $2.00/lb",
    "table_for_pd": {"fruit": ["figs", "nuts"], "price": ["$369.17/lb", "$2.00/lb"]}, "row_num": 2, "column_num": 2,
    "solution": "Multiply.\n\n$369.17 x 3 = $1,107.50", "ques_type": "free_text", "ans_type": "decimal_number",
    "grade": 6, "split": "test",
}  # fmt: skip
MARKET = SHOP | {
    "question": "At a price of $325, is there a shortage or a surplus?", "choices": ["shortage", "surplus"],
    "answer": "shortage", "unit": None, "table_title": None, "table": "Price | Demanded | Supplied\n$325 | 10,600 | 7,900",
    "ques_type": "multi_choice", "ans_type": "extractive_text",
}  # fmt: skip
YES = MARKET | {"question": "Is this relation a function?", "choices": ["yes", "no"], "answer": "yes", "ans_type": "boolean_text", "table_title": ""}  # fmt: skip
CSV = (
    "\ufeffquestion,final_answer,section,source\r\n"
    '"A recipe needs 350 grams, and a cake ""270 more"".\nHow many?",620,Translation,\r\n'
    'The value of x is \u22124. What is (3x \u2212 5) + x?,-21,"Expressions, Relations",Access for free\r\n'
)


def _conf(name: str) -> Benchmark:
    return Benchmark(**resolvers.benchmarks([name])[name])  # type: ignore[arg-type]


def _problems(path: Path, name: str) -> list[Row]:
    return [problem_of(raw, name, _conf(name)) or {} for _, raw in read_benchmark([path]) if isinstance(raw, dict)]


def _file(folder: Path, text: str, name: str = "problems_test1k.json") -> Path:
    (folder / name).write_text(text, newline="")
    return folder / name


@pytest.mark.parametrize("indent", [None, 4])
def test_a_table_with_a_title_a_unit_and_options(tmp_path: Path, indent: int | None) -> None:
    path = _file(tmp_path, json.dumps({"19248": SHOP, "38": MARKET, "7": YES}, indent=indent))
    shop, market, yes = _problems(path, "tabmwp_1k")
    assert shop["problem"] == (
        "Read the following table and then answer the question that follows.\nPrices\nfigs | $369.17/lb\nnuts | $2.00/lb\n\n"
        "Luke buys 3 pounds of figs. What does he pay? (Unit: $)"
    )
    assert market["problem"] == (
        "Read the following table and then answer the question that follows.\n"
        "Price | Demanded | Supplied\n$325 | 10,600 | 7,900\n\n"
        "At a price of $325, is there a shortage or a surplus?\nAnswer options:\nshortage\nsurplus"
    )
    assert [row["id"] for row in (shop, market, yes)] == ["19248", "38", "7"]
    assert [row["expected_answer"] for row in (shop, market, yes)] == ["1,107.50", "shortage", "yes"]
    assert (yes["level"], yes["subject"], yes["source"]) == (6, "boolean_text", "multi_choice")
    assert yes["problem"].endswith("Is this relation a function?\nAnswer options:\nyes\nno")


@pytest.mark.parametrize(
    ("given", "expected", "is_equal"),
    [
        ("$1107.50", "1,107.50", True), ("1107.5", "1,107.50", True), ("1107.05", "1,107.50", False),
        (r"\text{Shortage}", "shortage", True), ("surplus", "shortage", False), ("Yes", "yes", True), ("no", "yes", False),
        ("(A) shortage", "shortage", True), ("3:30 P.M.", "3:30 p.m.", True),
        ("(A)", "shortage", False), ("A", "(A) shortage", True), ("shortage", "(A) shortage", True), ("B", "(A) shortage", False),
    ],
)  # fmt: skip
def test_a_letter_is_an_answer_only_where_the_expected_one_has_it(given: str, expected: str, is_equal: bool) -> None:
    assert equal(given, expected) is is_equal


@pytest.mark.parametrize("answer", [None, "", "  ", True])
def test_a_row_without_an_answer(answer: Any) -> None:
    with pytest.raises(BadRow, match="no_answer"):
        problem_of(MARKET | {"answer": answer}, "tabmwp", _conf("tabmwp"))


def test_a_row_without_a_column_of_the_template() -> None:
    with pytest.raises(BadRow, match="no column 'choices', which template names"):
        problem_of({key: value for key, value in SHOP.items() if key != "choices"}, "tabmwp", _conf("tabmwp"))
    with pytest.raises(ValueError, match=r"made by `template` or is `columns\.problem`"):
        check_settings("b", Benchmark(template=["{a}"], columns={"problem": "b"}))


def test_braces_in_a_column_are_text() -> None:
    row = problem_of({"a": "{b}", "b": 2, "answer": 1}, "b", Benchmark(template=["{a} and {b}"]))
    assert row is not None and row["problem"] == "{b} and 2"


def test_rows_by_id_and_one_a_line_hash_alike(tmp_path: Path) -> None:
    by_id = _file(tmp_path, json.dumps({"1": SHOP, "2": MARKET}))
    lines = _file(tmp_path, "".join(json.dumps(row | {"pid": 3}) + "\n" for row in (MARKET, SHOP)), "test.jsonl")
    assert content_hash(_problems(by_id, "tabmwp")) == content_hash(_problems(lines, "tabmwp"))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('{"meta": {"a": 1}, "problem": "P"}\n{"meta": {}, "problem": "Q"}\n', 2),
        ('{"meta": {"a": 1}, "problem": "P"}', 1),
        ('{"1": {"problem": "P"}, "2": {"problem": "Q"}, "3": {}}', 3),
    ],
)
def test_rows_by_id_are_told_from_rows_one_a_line(tmp_path: Path, text: str, rows: int) -> None:
    assert len(list(read_benchmark([_file(tmp_path, text)]))) == rows


def test_an_id_that_is_there_twice_loses_no_row(tmp_path: Path) -> None:
    path = _file(tmp_path, '{"8": {"question": "P"}, "9": {"question": "Q"}, "8": {"question": "R"}}')
    with pytest.raises(ValueError, match=rf"{path}: '8' is there twice in one JSON object"):
        list(read_benchmark([path]))
    cut = _file(tmp_path, json.dumps({"1": SHOP, "2": MARKET})[:-9])
    assert ["not a JSON object" in str(row) for _, row in read_benchmark([cut])] == [True]


def test_algebra222_as_published(tmp_path: Path) -> None:
    first, second = _problems(_file(tmp_path, CSV, "algebra222.csv"), "algebra222")
    assert first["problem"] == 'A recipe needs 350 grams, and a cake "270 more".\nHow many?'
    assert (first["expected_answer"], second["expected_answer"]) == ("620", "-21")
    assert (first["subject"], second["subject"]) == ("Translation", "Expressions, Relations")
    lines = "".join(
        json.dumps({"question": row["problem"], "final_answer": float(row["expected_answer"])}) + "\n"
        for row in (second, first)
    )
    assert content_hash(_problems(_file(tmp_path, lines, "test.jsonl"), "algebra222")) == content_hash([first, second])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line has to name the columns"),
        ("a,a\n1,2\n", "the first line has to name the columns, each once"),
        ('a,b\n1,"2', "not CSV in UTF-8"),
        ("a,b\n1,\udcff\n", "not CSV in UTF-8"),
    ],
)
def test_a_damaged_csv_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"{path}: .*{said}"):
        list(read_benchmark([path]))


def test_a_line_of_a_csv_file_that_lacks_a_value(tmp_path: Path) -> None:
    found = list(read_benchmark([_file(tmp_path, "question,answer\nQ,1\n\nQ\n", "a.csv")]))
    assert [row for _, row in found] == [
        {"question": "Q", "answer": "1"},
        "1 values, and the first line names 2 columns: question, answer",
    ]
    assert found[1][0].endswith("a.csv: line 4, row 2")


def test_a_file_that_is_not_here_says_where_it_is_published(tmp_path: Path) -> None:
    source = _conf("algebra222").source
    with pytest.raises(
        ValueError, match=r"get it from where it is published: .*joyheyueya/declarative-math-word-problem"
    ):
        benchmark_files("algebra222", f"{tmp_path}/x/algebra222.csv", "test", tmp_path, "", source)
    assert list(resolvers.benchmarks([str(_file(tmp_path, CSV, "mine.csv"))])) == ["mine"]
