import sys
from pathlib import Path
from types import ModuleType

import pytest

from nemo_ext.curation.filter_chain import ADDED_BY, EDITS, FILTERS, NEEDS, Step, apply, require_columns
from nemo_ext.curation.filter_steps import functions
from nemo_ext.curation.filters.context import Context
from nemo_ext.curation.token_limits import Counted

GOOD = {
    "problem": "What is 1 + 1?",
    "generation": "It is \\boxed{2}.",
    "predicted_answer": "2",
    "expected_answer": "2",
    "is_correct": True,
    "finish_reason": "stop",
}
WORDS = Context(Counted(lambda text: len(text.split())))


@pytest.mark.parametrize(
    ("step", "change", "reason"),
    [
        (Step("incorrect"), {}, None),
        (Step("incorrect"), {"is_correct": False}, "incorrect"),
        (Step("incorrect"), {"predicted_answer": None}, "no_answer"),
        (Step("incorrect"), {"is_correct": None}, "incorrect"),
        (Step("incorrect"), {"is_correct": "yes"}, "incorrect"),
        (Step("truncated"), {}, None),
        (Step("truncated"), {"finish_reason": "length"}, "truncated"),
        (Step("multiple_boxes"), {}, None),
        (Step("multiple_boxes"), {"generation": r"\boxed{2} \boxed{2}"}, "multiple_boxes"),
        (Step("multiple_boxes"), {"generation": r"\boxed{2} \boxed{"}, "multiple_boxes"),
        (Step("no_box"), {}, None),
        (Step("no_box"), {"generation": "It is 2."}, "no_box"),
        (Step("no_box"), {"generation": r"It is \boxed{2."}, "no_box"),
        (Step("problem_too_long", {"max_tokens": 5}), {}, None),
        (Step("problem_too_long", {"max_tokens": 4}), {}, "problem_too_long"),
        (Step("solution_too_long", {"max_tokens": 3}), {}, None),
        (Step("solution_too_long", {"max_tokens": 2}), {}, "solution_too_long"),
        (Step("solution_too_long", {"max_tokens": None, "max_chars": 16}), {}, None),
        (Step("solution_too_long", {"max_tokens": None, "max_chars": 15}), {}, "solution_too_long"),
        (Step("solution_too_short", {"min_chars": None, "min_tokens": 3}), {}, None),
        (Step("solution_too_short", {"min_chars": None, "min_tokens": 4}), {}, "solution_too_short"),
        (Step("problem_too_long", {"max_chars": 13}), {}, "problem_too_long"),
        (Step("problem_too_short"), {}, "problem_too_short"),
        (Step("problem_too_short", {"min_chars": 14}), {}, None),
        (Step("solution_too_short"), {}, "solution_too_short"),
        (Step("solution_too_short"), {"generation": "x" * 199}, "solution_too_short"),
        (Step("solution_too_short"), {"generation": "x" * 200}, None),
        (Step("solution_too_short", {"min_chars": 10}), {}, None),
        (Step("incorrect_arithmetic"), {}, None),
        (Step("incorrect_arithmetic"), {"generation": r"1 + 1 = 3 so \boxed{3}"}, "incorrect_arithmetic"),
        (Step("incorrect_arithmetic", {"rel_tol": 0.1}), {"generation": "10 / 3 = 3.3"}, None),
        (Step("majority", {"min_votes": 8}), {}, None),
        (Step("majority", {"min_votes": 8}), {"majority_votes": 8, "total_votes": 32}, None),
        (Step("majority", {"min_votes": 9}), {"majority_votes": 8, "total_votes": 32}, "small_majority"),
        (Step("majority", {"min_share": 0.25}), {"majority_votes": 8, "total_votes": 32}, None),
        (Step("majority", {"min_share": 0.26}), {"majority_votes": 8, "total_votes": 32}, "small_majority"),
        (Step("majority", {"min_share": 0.5}), {"majority_votes": 0, "total_votes": 0}, "small_majority"),
    ],
)
def test_filter(step: Step, change: dict, reason: str | None) -> None:
    assert apply(GOOD | change, [step], WORDS)[1] == reason


@pytest.mark.parametrize(
    ("step", "solution", "edited"),
    [
        (Step("trim_prefix"), "My solution:\nIt is 2.", "It is 2."),
        (Step("trim_prefix"), "It is 2.\nMy solution:\n", "It is 2.\nMy solution:"),
        (Step("trim_prefix", {"prefix": "A: "}), "A: 2", "2"),
        (Step("split_arithmetic"), "1 + 2 + 3 = 6", "1 + 2 + 3 = 3 + 3 = 6"),
        (Step("trim_after_answer"), "a\n\\boxed{2}. So.\nProblem:", "a\n\\boxed{2}. So."),
        (Step("trim_after_answer"), "no box\nat all", "no box\nat all"),
        (Step("trim_after_answer"), "\\boxed{1}\nb\n\\boxed{2}\nc", "\\boxed{1}\nb\n\\boxed{2}"),
        (Step("trim_after_answer"), "a\n\\boxed{\n1\n} ok\nc", "a\n\\boxed{\n1\n} ok"),
        (Step("trim_after_answer"), "\\[\n\\boxed{1}\n\\]\nc", "\\[\n\\boxed{1}\n\\]"),
        (Step("trim_after_answer"), "$$\n\\boxed{1}\n$$\nc", "$$\n\\boxed{1}\n$$"),
        (
            Step("trim_after_answer"),
            "\\begin{align*}\n\\boxed{1}\n\\end{align*}\nc",
            "\\begin{align*}\n\\boxed{1}\n\\end{align*}",
        ),
        (Step("trim_after_answer"), "\\boxed{1} and \\boxed{2\nc", "\\boxed{1} and \\boxed{2"),
    ],
)
def test_edit(step: Step, solution: str, edited: str) -> None:
    row = GOOD | {"generation": solution}
    found, reason = apply(row, [step])
    assert (found["generated_solution"], reason) == (edited, None)
    assert found["generation"] == solution
    assert "generated_solution" not in row


def test_steps_run_in_order_on_the_edited_solution() -> None:
    row = GOOD | {"generation": " My solution:\n\\boxed{2}\nProblem: \\boxed{3}\n"}
    found, reason = apply(row, [Step("trim_prefix"), Step("multiple_boxes"), Step("no_box")])
    assert reason == "multiple_boxes"
    assert found["generated_solution"] == "\\boxed{2}\nProblem: \\boxed{3}"


def test_an_earlier_stage_s_solution_is_kept() -> None:
    assert apply(GOOD | {"generated_solution": "edited"}, [])[0]["generated_solution"] == "edited"


def test_unknown_names_and_parameters_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="choose one of .*incorrect.*trim_prefix"):
        Step("remove_bad")
    with pytest.raises(ValueError, match="unknown parameter min_words; it takes min_chars, min_tokens"):
        Step("solution_too_short", {"min_words": 3})
    with pytest.raises(ValueError, match="it takes none"):
        Step("incorrect", {"strict": True})


@pytest.mark.parametrize(
    ("step", "params", "message"),
    [
        ("solution_too_short", {"min_chars": "many"}, "min_chars='many' is not int | None"),
        ("solution_too_short", {"min_chars": True}, "min_chars=True"),
        ("solution_too_long", {"max_tokens": 10.5}, "max_tokens=10.5"),
        ("majority", {"min_share": None}, "min_share=None is not float"),
        ("mojibake", {"columns": "problem"}, "columns='problem'"),
        ("trim_prefix", {"prefix": 3}, "prefix=3 is not str"),
    ],
)
def test_values_of_another_type_are_refused(step: str, params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", "[|]")):
        Step(step, params)


@pytest.mark.parametrize("value", [None, 3, ["a"], {"a": 1}])
@pytest.mark.parametrize(
    ("column", "reason"),
    [("problem", "no_problem"), ("generation", "no_solution"), ("generated_solution", "no_solution")],
)
def test_a_column_that_is_no_text_is_a_reason(column: str, reason: str, value: object) -> None:
    if (column, value) == ("generated_solution", None):
        reason = None  # then the generation is taken
    assert (
        apply(GOOD | {column: value}, [Step(name) for name in FILTERS if name in ("multiple_boxes", "mojibake")])[1]
        == reason
    )


def test_missing_columns_are_refused_with_the_way_on() -> None:
    own = [{"id": 1, "problem": "p", "generation": "s"}]
    require_columns(own, [Step("no_box"), Step("trim_prefix")])
    with pytest.raises(
        ValueError, match=r"step incorrect needs the column is_correct.*first 1 rows.*\+recipe=grade input="
    ):
        require_columns(own, [Step("no_box"), Step("incorrect")])
    with pytest.raises(ValueError, match=r"step majority needs the column majority_votes.*\+recipe=vote"):
        require_columns(own, [Step("majority")])
    with pytest.raises(ValueError, match=r"rows have no solution.*\+recipe=generate"):
        require_columns([{"problem": "p"}], [Step("no_box")])
    require_columns([], [Step("incorrect")])
    assert set(NEEDS) <= set(FILTERS) and {column for columns in NEEDS.values() for column in columns} == set(ADDED_BY)


def test_the_names_recipes_use_exist() -> None:
    names = {"incorrect", "truncated", "multiple_boxes", "no_box", "problem_too_long", "solution_too_long"}
    assert names | {"solution_too_short", "incorrect_arithmetic", "majority"} <= set(FILTERS)
    assert {"trim_prefix", "trim_after_answer"} <= set(EDITS)
    assert not set(FILTERS) & set(EDITS)


def test_a_filter_is_added_as_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(
        "def shouting(row, context, *, most: int = 3) -> str | None:\n"
        "    return 'shouting' if row['generated_solution'].count('!') > most else None\n"
        "def quieter(solution: str) -> str:\n    return solution.replace('!', '.')\n"
        "def helper(text: str) -> bool:\n    return True\n"
    )
    package = ModuleType("own_filters")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "own_filters", package)
    found = functions(package, ("row", "context"), str | None)
    edits = functions(package, ("solution",), str)
    monkeypatch.delitem(sys.modules, "own_filters.own")
    assert list(found) == ["shouting"] and list(edits) == ["quieter"]
    monkeypatch.setitem(FILTERS, "shouting", found["shouting"])
    monkeypatch.setitem(EDITS, "quieter", edits["quieter"])
    row = {"problem": "p", "generation": "no!!!!"}
    assert apply(row, [Step("shouting", {"most": 2})])[1] == "shouting"
    assert apply(row, [Step("quieter"), Step("shouting")]) == (row | {"generated_solution": "no...."}, None)
