import pytest

from nemo_ext.curation.filters import EDITS, FILTERS, Context, Step, apply

GOOD = {
    "problem": "What is 1 + 1?",
    "generation": "It is \\boxed{2}.",
    "predicted_answer": "2",
    "expected_answer": "2",
    "is_correct": True,
    "finish_reason": "stop",
}
WORDS = Context(count_tokens=lambda text: len(text.split()))


@pytest.mark.parametrize(
    ("step", "change", "reason"),
    [
        (Step("incorrect"), {}, None),
        (Step("incorrect"), {"is_correct": False}, "incorrect"),
        (Step("incorrect"), {"predicted_answer": None}, "no_answer"),
        (Step("incorrect"), {"is_correct": None}, "incorrect"),
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
    with pytest.raises(ValueError, match="unknown parameter min_tokens; it takes min_chars"):
        Step("solution_too_short", {"min_tokens": 3})
    with pytest.raises(ValueError, match="it takes none"):
        Step("incorrect", {"strict": True})


def test_the_names_recipes_use_exist() -> None:
    names = {"incorrect", "truncated", "multiple_boxes", "no_box", "problem_too_long", "solution_too_long"}
    assert names | {"solution_too_short", "incorrect_arithmetic", "majority"} == set(FILTERS)
    assert set(EDITS) == {"trim_prefix", "trim_after_answer"}
