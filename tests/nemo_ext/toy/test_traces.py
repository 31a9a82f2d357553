"""Toy traces: graded rows under three strategies, whose counts differ from problem to problem."""

from collections import Counter
from pathlib import Path

import pytest

from nemo_ext.curation.filters.code import has_code
from nemo_ext.grading.extract import boxed
from nemo_ext.rows.schemes import toy
from nemo_ext.toy.problems import identify, split_of
from nemo_ext.toy.traces import traces

ROWS = list(traces(200, 6, 0))


def test_a_trace_is_right_where_it_says_so() -> None:
    for row in ROWS:
        assert row["is_correct"] is (row["predicted_answer"] == row["expected_answer"])
        assert boxed(row["generated_solution"]) == row["predicted_answer"]
        key = identify(row["problem"])
        assert key is not None and split_of(key) == "train"


def test_no_solution_of_a_problem_comes_twice() -> None:
    assert len({(row["problem"], row["generated_solution"]) for row in ROWS}) == len(ROWS)
    assert len({(row["problem"], row["sample_index"]) for row in ROWS}) == len(ROWS)


def test_problems_strategies_and_code_are_as_uneven_as_real_ones() -> None:
    right = [row for row in ROWS if row["is_correct"]]
    counts = Counter(row["problem"] for row in right)
    assert min(counts.values()) == 1 and max(counts.values()) > 9
    assert (
        Counter(row["strategy"] for row in right)["masked"]
        > 1.1 * Counter(row["strategy"] for row in right)["default"]
    )
    assert {row["problem_source"] for row in right if row["strategy"] == "subject"} == {"math"}
    words = sum(not has_code(row["generated_solution"]) for row in right)
    assert 0.1 < words / len(right) < 0.3


def test_they_depend_on_their_seed_alone() -> None:
    assert list(traces(20, 3, 7)) == list(traces(20, 3, 7)) != list(traces(20, 3, 8))


def test_their_address(tmp_path: Path) -> None:
    (file,) = toy.files("toy://traces?num_problems=20&num_samples=3&seed=7", None, tmp_path)
    assert len(file.read_text().splitlines()) == len(list(traces(20, 3, 7)))


@pytest.mark.parametrize("address", ["toy://traces/math?num_problems=3", "toy://traces?num_rows=3"])
def test_an_address_that_is_none(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it may be .*toy://traces\?num_problems="):
        toy.files(address, None, tmp_path)
