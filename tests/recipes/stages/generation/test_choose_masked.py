import pytest

PROBLEMS = [
    {"id": "a", "problem": "Add 512 to 347 times 128.", "expected_answer": "44928", "problem_source": "math",
     "solution": r"347 * 128 = 44416. 512 + 44416 = 44928. The answer is \boxed{44928}."},
    {"id": "b", "problem": "What is 30 + 12?", "expected_answer": "42", "solution": r"30 + 12 = 42. \boxed{42}."},
    {"id": "c", "problem": "No solution is known.", "expected_answer": "1"},
    {"id": "d", "problem": "Nobody tried.", "expected_answer": "7", "solution": r"It is \boxed{7}."},
]  # fmt: skip
MASKED = r"347 * 128 = M. 512 + M = N. The answer is \boxed{N}."
LEAK = r"30 + 12 = N. \boxed{42}."


def attempt(problem: int, text: str, finish_reason: str = "stop") -> dict:
    return PROBLEMS[problem] | {"generation": text, "finish_reason": finish_reason, "sample_index": 0}


ATTEMPTS = [
    attempt(0, MASKED.replace("M", "44416")),
    attempt(0, MASKED),
    attempt(0, "", "length"),
    attempt(1, LEAK),
    attempt(1, ""),
    attempt(2, "whatever"),
]


def test_every_problem_gets_one_and_what_was_tried_is_counted(run, rows) -> None:
    ran = run("choose_masked", input=rows(ATTEMPTS), problems=rows(PROBLEMS))
    assert [(row["id"], row.get("masked_solution"), row["masked_by"]) for row in ran.output] == [
        ("a", MASKED, "hidden"),
        ("b", LEAK, "answer_found"),
        ("c", None, "no_reference"),
        ("d", r"It is \boxed{7}.", "reference"),
    ]
    assert "generation" not in ran.output[0] and ran.output[0]["problem_source"] == "math"
    assert not ran.dropped
    assert ran.manifest["figures"] == {
        "attempts": {"hidden": 2, "empty": 2, "answer_found": 1},
        "masked_by": {"hidden": 1, "answer_found": 1, "no_reference": 1, "reference": 1},
    }


def test_without_fallbacks_no_answer_is_given_away(run, rows) -> None:
    ran = run("choose_masked", input=rows(ATTEMPTS), problems=rows(PROBLEMS), fallbacks=[])
    assert [row["id"] for row in ran.output if "masked_solution" in row] == ["a"]
    assert [row["masked_by"] for row in ran.output] == ["hidden", "not_masked", "no_reference", "not_masked"]


def test_what_cannot_be_told_apart_is_refused(run, rows) -> None:
    with pytest.raises(ValueError, match="two problems with the id 'a'"):
        run("choose_masked", input=rows(ATTEMPTS), problems=rows([*PROBLEMS, PROBLEMS[0]]))
    with pytest.raises(ValueError, match="an attempt at 'b'"):
        run("choose_masked", input=rows(ATTEMPTS), problems=rows(PROBLEMS[:1]))
    with pytest.raises(ValueError, match=r"fallbacks has \['guess'\]; it may have \('answer_found'"):
        run("choose_masked", input="x", problems="x", fallbacks=["guess"])
