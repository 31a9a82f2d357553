from collections import Counter

import pytest

CODE = "```python\nprint(4)\n```\n```output\n4\n```\nIt is 4."


def samples(problem: str, code: int, words: int) -> list[dict]:
    texts = [CODE] * code + ["It is 4."] * words
    return [{"id": problem, "problem": problem, "generation": text, "sample_index": i} for i, text in enumerate(texts)]


DATA = samples("a", 1, 3) + samples("b", 3, 1) + samples("c", 0, 2)


@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("any_code", {"a": 1, "b": 3, "c": 2}),
        ("majority_code", {"a": 4, "b": 3, "c": 2}),
        ("majority_text", {"a": 3, "b": 3, "c": 2}),
        ("all", {"a": 1, "b": 3}),
    ],
)
def test_modes(run, rows, mode: str, kept: dict[str, int]) -> None:
    ran = run("select_code", input=rows(DATA), mode=mode)
    assert Counter(row["id"] for row in ran.output) == kept
    assert set(ran.reasons) <= {"has_code", "has_no_code"} and ran.manifest["rows_in"] == 10
    counted = {"problems": 3, "problems_with_code": 2, "layouts": {"problem + generation": 10}}
    assert ran.manifest["figures"] == counted


def test_samples_in_any_order_and_a_count_from_before_filters(run, rows) -> None:
    scattered = DATA[::2] + DATA[1::2]
    ran = run("select_code", input=rows(scattered), mode="majority_text")
    assert Counter(row["id"] for row in ran.output) == {"a": 3, "b": 3, "c": 2}
    of_eight = run("select_code", input=rows(DATA), mode="majority_text", total=8, folder="eight")
    assert Counter(row["id"] for row in of_eight.output) == {"a": 3, "b": 1, "c": 2}


def test_only_the_sources_that_are_named(run, rows) -> None:
    """OpenMathInstruct-1's final set: of MATH those with code where there are any, of GSM8K all."""
    sources = {"a": "math", "b": "gsm8k", "c": "math"}
    data = [row | {"problem_source": sources[row["id"]]} for row in DATA]
    ran = run("select_code", input=rows(data), sources=["math"])
    assert Counter(row["id"] for row in ran.output) == {"a": 1, "b": 4, "c": 2}
    assert ran.manifest["figures"]["problems_of_other_sources"] == 1 and ran.manifest["figures"]["problems"] == 2
    with pytest.raises(ValueError, match=r"sources=\['physics'\]: no row has one of them"):
        run("select_code", input=rows(data), sources=["physics"], folder="none")


def test_what_cannot_work_is_refused(run) -> None:
    with pytest.raises(ValueError, match=r"mode='most'; it may be one of \('any_code'"):
        run("select_code", input="x", mode="most")
    with pytest.raises(ValueError, match="total=0"):
        run("select_code", input="x", total=0)
