"""Rows of benchmark files as problems: columns, the rules that derive sets, hashes; and where the files are looked for."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launchers.planning import resolvers
from nemo_ext.problems.benchmark import Benchmark, check_settings, content_hash, is_integer, problem_of
from nemo_ext.problems.benchmark_files import benchmark_files, read_benchmark
from nemo_ext.rows.outside.columns import BadRow

MATH_L4 = Benchmark(columns={"subject": "type", "answer": None}, keep={"level": 4, "answer": "integer"})


def _math(answer: str, level: str = "Level 4") -> dict[str, Any]:
    solution = rf"First \boxed{{999}}, then it is \boxed{{{answer}}}."
    return {"problem": f"What is {answer}?", "level": level, "type": "Algebra", "solution": solution}


@pytest.mark.parametrize("answer", ["12", "-3", "0", "5.", "4.0", "1e3", " 7 "])
def test_numina_keeps_what_float_reads_as_a_whole_number(answer: str) -> None:
    assert is_integer(answer)
    row = problem_of(_math(answer) | {"answer": "1/2"}, "numina_math_l4", MATH_L4)
    assert row is not None, "the rule looks at the last box, not at another column"
    assert row["expected_answer"] == answer.strip()
    assert (row["level"], row["subject"], row["benchmark"]) == (4, "Algebra", "numina_math_l4")


@pytest.mark.parametrize(
    "answer",
    ["2.5", "1,000", r"\frac{4}{2}", "3^2", r"12\text{ cm}", "12%", "$5", "inf", "nan", "x", "10_2_", "1e400"],
)
def test_numina_leaves_out_what_needs_more_than_float(answer: str) -> None:
    assert not is_integer(answer)
    assert problem_of(_math(answer), "numina_math_l4", MATH_L4) is None


def test_keep_chooses_levels() -> None:
    assert problem_of(_math("12", "Level 5"), "l4", MATH_L4) is None
    both = Benchmark(keep={"level": [4, 5]})
    assert [problem_of(_math("1/2", f"Level {i}"), "b", both) is not None for i in (3, 4, 5)] == [False, True, True]
    unknown = problem_of(_math("12", "Level ?"), "b", Benchmark())
    assert unknown is not None and unknown["level"] == "Level ?"


@pytest.mark.parametrize(
    ("raw", "settings", "expected"),
    [
        ({"Body": "Ann has 3 pens.", "Question": " How many? ", "Answer": 3.0},
         {"columns": {"problem": ["Body", "Question"], "answer": "Answer"}}, ("Ann has 3 pens. How many?", "3")),
        ({"input": "Q", "target": -5}, {"columns": {"problem": "input", "answer": "target"}}, ("Q", "-5")),
        ({"question": "Q", "final_answer": ["$2$"]}, {"columns": {"answer": "final_answer"}}, ("Q", "$2$")),
        ({"question": "Q", "answer": ["1", "2"]}, {}, ("Q", "1, 2")),
        ({"question": "Q", "answer": "9 (apples)"}, {"answer_units": True}, ("Q", "9")),
        ({"question": "Q", "answer": "(3, 4)"}, {"answer_units": True}, ("Q", "(3, 4)")),
        ({"question": "Q", "answer": "so\n#### 1,234"}, {"answer_type": "integer"}, ("Q", "1234")),
    ],
)  # fmt: skip
def test_columns_of_published_files(raw: dict[str, Any], settings: dict[str, Any], expected: tuple[str, str]) -> None:
    row = problem_of(raw, "b", Benchmark(**settings))
    assert row is not None and (row["problem"], row["expected_answer"]) == expected


@pytest.mark.parametrize(
    ("raw", "settings", "said"),
    [
        ({"question": "Q", "answer": "x+1"}, {"answer_type": "number"}, "'x\\+1' is not a number"),
        ({"question": "Q", "answer": 2.5}, {"answer_type": "integer"}, "'2.5' is not a whole number"),
        ({"question": "Q", "answer": float("nan")}, {}, "no_answer"),
        ({"question": "Q", "answer": "  "}, {}, "no_answer"),
        ({"question": "Q", "answer": []}, {}, "no_answer"),
        ({"text": "Q"}, {"columns": {"problem": "input"}}, "no column 'input', which columns.problem names"),
    ],
)
def test_a_row_that_cannot_be_used(raw: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRow, match=said):
        problem_of(raw, "b", Benchmark(**settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"columns": {"anwser": "a"}}, r"columns has \['anwser'\]; it may have id, problem, answer"),
        ({"keep": {"colour": 1}}, "keep has"),
        ({"keep": {"answer": "even"}}, "keep.answer='even'"),
        ({"answer_type": "text"}, "answer_type has"),
    ],
)
def test_settings_that_no_file_can_make_right(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_settings("b", Benchmark(**settings))


def test_the_hash_is_of_the_problems_and_of_nothing_else() -> None:
    rows = [{"problem": "What is\n 1 + 1?", "expected_answer": "2"}, {"problem": "é", "expected_answer": "x"}]
    found = content_hash(rows)
    assert re.fullmatch("[0-9a-f]{64}", found)
    same = [
        {"problem": "e\u0301", "expected_answer": " x", "id": 7},
        {"problem": " What is\r\n1 + 1? ", "expected_answer": "2"},
    ]
    assert content_hash(same) == found, "order, ids, line ends, white space and Unicode form do not matter"
    assert content_hash([rows[0], rows[1] | {"expected_answer": "y"}]) != found
    assert content_hash(rows[:1]) != found and content_hash([*rows, rows[0]]) != found
    assert content_hash([rows[0], {"problem": "ex", "expected_answer": ""}]) != found


def _lines(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"problem": text, "answer": 1}) + "\n" for text in texts))
    return path


def test_folders_as_the_hub_lays_them_out(tmp_path: Path) -> None:
    parts = [tmp_path / "data" / f"train-0000{i}-of-00002.parquet" for i in range(2)]
    parts[0].parent.mkdir()
    for path in parts:
        pq.write_table(pa.Table.from_pylist([{"problem": path.name, "answer": "1"}]), path)
    test = _lines(tmp_path / "data" / "test.jsonl", "T")
    assert benchmark_files("b", str(tmp_path), "train", tmp_path) == parts
    assert benchmark_files("b", str(tmp_path), "train+test", tmp_path) == [*parts, test]
    assert benchmark_files("b", str(tmp_path / "test.jsonl"), "test", tmp_path) == [test], (
        "a download has the file elsewhere"
    )
    assert [row["problem"] for _, row in read_benchmark([*parts, test])] == [parts[0].name, parts[1].name, "T"]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"no files of the split 'validation' .*it has test\.jsonl, train-00000"):
        benchmark_files("b", str(tmp_path), "validation", tmp_path)


def test_a_split_in_two_configurations_is_asked_back(tmp_path: Path) -> None:
    for name in ("main", "socratic"):
        _lines(tmp_path / name / "test.jsonl", name)
    with pytest.raises(ValueError, match=r"more than once; give one of .*/main, .*/socratic"):
        benchmark_files("b", str(tmp_path), "test", tmp_path)
    assert benchmark_files("b", str(tmp_path / "main"), "test", tmp_path) == [tmp_path / "main" / "test.jsonl"]


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"hf download a/b --repo-type dataset --local-dir {tmp_path}/x$"):
        benchmark_files("b", f"{tmp_path}/x/test.jsonl", "test", tmp_path, "a/b")
    with pytest.raises(ValueError, match="it may be hf://<owner>"):
        benchmark_files("b", "hf://gsm8k", "test", tmp_path)


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **keys: Any) -> str:
        asked.update(keys, name=name)
        if name == "a/gone":
            raise FileNotFoundError("no network\nand more")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    file = _lines(tmp_path / "main" / "test.jsonl", "Q")
    assert benchmark_files("b", "hf://a/set@v1/main", "test", tmp_path) == [file]
    assert (asked["name"], asked["revision"], asked["allow_patterns"]) == ("a/set", "v1", ["*test.*", "*test-*"])
    with pytest.raises(ValueError, match=r"could not be fetched: no network\. Without a network"):
        benchmark_files("b", "hf://a/gone", "test", tmp_path)


@pytest.mark.parametrize("text", ["\ufeff{line}\r\n{line}\r\n", "[{line},\n {line}]", "\ufeff[{line}, {line}]"])
def test_byte_order_marks_line_ends_and_arrays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "test.json"
    path.write_text(text.replace("{line}", json.dumps({"problem": "Q", "answer": 1})), newline="")
    assert [row for _, row in read_benchmark([path])] == [{"problem": "Q", "answer": 1}] * 2


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.parquet", b"PAR1 and then nothing", "not a readable parquet file"),
        ("a.json", b'[{"problem": "Q"', "not a JSON array"),
    ],
)
def test_a_file_that_is_cut_off(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}: {said}"):
        list(read_benchmark([tmp_path / name]))


def test_every_benchmark_of_conf_is_well_formed() -> None:
    names = sorted(path.stem for path in (resolvers.CONF / "benchmark").glob("*.yaml"))
    assert len(names) >= 26
    for name, each in resolvers.benchmarks(names).items():
        settings = Benchmark(**each)
        check_settings(str(name), settings)
        assert settings.source, name
        for other, version in settings.versions.items():
            assert name in resolvers.benchmarks([other])[other].versions, "each of two names the other"
            assert version != {"num_rows": settings.num_rows, "content_hash": settings.content_hash}, name
        if settings.few_shot is not None:
            assert (resolvers.CONF / "few_shot" / f"{settings.few_shot}.yaml").is_file(), name
        assert settings.content_hash is None or re.fullmatch("[0-9a-f]{64}", settings.content_hash), name
