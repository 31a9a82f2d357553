"""OpenMathInstruct-1's curation where a source has no right solution, or nobody has one: counted drops, or one clear line."""

from typing import Any

import pytest

from tests.composing import resolve_recipe

TRACE = {"executions": 0, "errors": {}, "ended": "answer"}


def solved(source: str, answers: list[str]) -> list[dict[str, Any]]:
    """Samples of one problem whose answer is 4."""
    return [
        {
            "id": source, "problem": f"2 + 2 in {source}?", "problem_source": source, "expected_answer": "4", "sample_index": i,
            "generation": f"It is \\boxed{{{answer}}}.", "trace": TRACE, "finish_reason": "stop",
        }
        for i, answer in enumerate(answers)
    ]  # fmt: skip


@pytest.fixture
def filtered(run, rows, model):
    """Graded and filtered as the recipe does."""
    steps = resolve_recipe("openmathinstruct1")["filter"].tasks[0].content["steps"]

    def start(data: list[dict[str, Any]]):
        graded = run("grade", "graded", input=rows(data))
        return run("filter", "filtered", input=str(graded.folder), steps=steps, model=model)

    return start


def test_one_source(run, filtered) -> None:
    ran = filtered(solved("math", ["4", "5"]) + solved("gsm8k", ["5", "6", "7"]))
    assert ran.manifest["dropped"] == {"incorrect": 4} and [row["id"] for row in ran.output] == ["math"]
    with pytest.raises(
        ValueError, match=r"max_per_source: no row is of gsm8k; there are math. Where earlier stages dropped"
    ):
        run("downsample", input=str(ran.folder), max_per_source={"gsm8k": 10})
    with pytest.raises(ValueError, match=r"sources=\['gsm8k'\]: no row has one of them as its problem_source"):
        run("select_code", input=str(ran.folder), sources=["gsm8k"])


def test_no_source(filtered) -> None:
    with pytest.raises(ValueError, match="filtered: no row is left. Dropped here: {'incorrect': 5}"):
        filtered(solved("math", ["1", "5"]) + solved("gsm8k", ["5", "6", "7"]))


def test_a_model_that_never_writes_code_leaves_nothing_where_only_code_is_kept(run, filtered) -> None:
    ran = filtered(solved("math", ["4", "4"]))
    assert len(run("select_code", input=str(ran.folder), mode="any_code").output) == 2
    with pytest.raises(ValueError, match="out: no row is left. Dropped here: {'has_no_code': 2}"):
        run("select_code", input=str(ran.folder), mode="all", folder="all/out")
