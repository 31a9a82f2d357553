import json
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
        ("none", {"a": 4, "b": 4, "c": 2}),
    ],
)
def test_modes(run, rows, mode: str, kept: dict[str, int]) -> None:
    ran = run("select_code", input=rows(DATA), mode=mode, drawn=[rows(DATA)])
    assert Counter(row["id"] for row in ran.output) == kept
    assert set(ran.reasons) <= {"has_code", "has_no_code"} and ran.manifest["rows_in"] == 10
    counted = {"problems": 3, "problems_with_code": 2, "layouts": {"problem + generation": 10}}
    assert ran.manifest["figures"] == counted


def test_samples_in_any_order(run, rows) -> None:
    scattered = rows(DATA[::2] + DATA[1::2])
    ran = run("select_code", input=scattered, mode="majority_text", drawn=[scattered])
    assert Counter(row["id"] for row in ran.output) == {"a": 3, "b": 3, "c": 2}


def test_a_majority_is_of_the_samples_before_filters(run, rows) -> None:
    """Of problem b 3 of 4 solutions that are left have code, and 8 samples were drawn: 3 are no majority."""
    drawn = rows(samples("b", 3, 5)[::-1] + samples("a", 1, 3) + samples("c", 0, 9) + samples("never solved", 2, 2))
    ran = run("select_code", input=rows(DATA), mode="majority_text", drawn=[drawn])
    assert Counter(row["id"] for row in ran.output) == {"a": 3, "b": 1, "c": 2}
    assert drawn in str(ran.manifest["inputs"])
    in_words = run("select_code", input=rows(DATA), mode="majority_code", drawn=[drawn], folder="both")
    assert Counter(row["id"] for row in in_words.output) == {"a": 4, "b": 4, "c": 2}


def test_samples_drawn_of_a_persons_own_rows(run, tmp_path) -> None:
    """Without ids, in several files, by several processes."""
    texts = {
        "few.jsonl": DATA,
        "all1.jsonl": samples("b", 3, 5) + samples("a", 1, 3),
        "all2.jsonl": samples("c", 0, 2),
    }
    for name, data in texts.items():
        lines = [json.dumps({"question": row["problem"], "response": row["generation"]}) for row in data]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    ran = run(
        "select_code",
        input=str(tmp_path / "few.jsonl"),
        mode="majority_text",
        drawn=[str(tmp_path / "all*.jsonl")],
        workers=2,
    )
    assert Counter(row["problem"] for row in ran.output) == {"a": 3, "b": 1, "c": 2}


@pytest.mark.parametrize("mode", ["majority_code", "majority_text"])
def test_a_majority_of_an_unknown_number_is_refused(run, rows, mode: str) -> None:
    with pytest.raises(
        ValueError, match=rf"out.mode={mode}: a majority is one of all samples .* Set stages.out.drawn="
    ):
        run("select_code", input=rows(DATA), mode=mode)
    with pytest.raises(ValueError, match="out.drawn: it has 2 samples of the problem 'b', of which 4 have come"):
        run("select_code", input=rows(DATA), mode=mode, drawn=[rows(samples("a", 1, 3) + samples("b", 1, 1))])


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
