import pytest

from nemo_ext.curation.choosing.code_selection import MODES, select
from nemo_ext.curation.code_blocks import blocks, without_code
from nemo_ext.curation.filter_chain import Step, apply
from nemo_ext.curation.filters.code import has_code


def tagged(code: str, output: str) -> str:
    return f"<llm-code>\n{code}\n</llm-code>\n<llm-code-output>\n{output}\n</llm-code-output>\n"


def fenced(code: str, output: str) -> str:
    return f"```python\n{code}\n```\n```output\n{output}\n```\n"


@pytest.mark.parametrize("form", [tagged, fenced])
def test_blocks(form) -> None:
    text = "We add.\n" + form("print(1 + 1)", "2") + "Then\n" + form("print(3)", "3") + "so 3."
    found = blocks(text)
    assert [(block.kind, block.text) for block in found] == [
        ("code", "print(1 + 1)"), ("output", "2"), ("code", "print(3)"), ("output", "3"),
    ]  # fmt: skip
    assert text[found[0].start :].startswith(("<llm-code>", "```python")) and text[: found[-1].end].rstrip().endswith(
        ("t>", "```")
    )


@pytest.mark.parametrize(
    ("solution", "broken"),
    [
        ("no code", False),
        (tagged("x", "1"), False),
        (tagged("x", "1") * 3, False),
        ("<llm-code>\nx\n</llm-code>\n", True),
        ("<llm-code>\nx\n", True),
        ("</llm-code>", True),
        ("<llm-code-output>\n1\n</llm-code-output>\n", True),
        ("<llm-code>\nx\n</llm-code-output>", True),
        (tagged("x", "1") + "<llm-code-output>\n1\n</llm-code-output>\n", True),
        ("<llm-code>a<llm-code>b</llm-code>", True),
        (tagged("print('''\n```python\n''')", "1"), False),
        (fenced("x", "1"), False),
        ("```python\nx\n```\nNo output is shown.", False),
        ("```python\nx\n```\n" + fenced("y", "1"), True),
        ("```python\nx\n", True),
        ("```output\n1\n```", True),
        ("```python\nx\n```output\n1\n```", True),
        ("```json\n{}\n```", False),
        ("Use ``` in a line and `x`.", False),
        ("```\nplain\n```", False),
        ("  ```py\n  x\n  ```\n", False),
        ("``` python3\r\nx\r\n```\r\n```output\r\n1\r\n```\r\n", False),
        ("```python\nprint(1)```\n```output\n1\n```\n", False),
        ("```python\nprint(1)```\nand words", True),
        ("```python\nx\n```\n````output\n```\n```python\n````\n", False),
    ],
)
def test_broken_code(solution: str, broken: bool) -> None:
    assert (blocks(solution) is None) is broken
    assert apply({"problem": "p", "generation": solution}, [Step("broken_code")])[1] == (
        "broken_code" if broken else None
    )


@pytest.mark.parametrize("form", [tagged, fenced])
@pytest.mark.parametrize("broken", ["", "</llm-code>\n", "```python\n", "<llm-code-output>\n"])
def test_words_are_what_is_left_without_code(form, broken: str) -> None:
    """Also where other marks do not pair up."""
    begins, ends = f"{broken}We add.\n", "so \\boxed{3}.\n```\nplain\n```\n"
    block = form("print(1 + 1)", "\\boxed{2}")
    said = without_code(begins + block + ends)
    assert len(said) == len(begins + block + ends) and said.startswith(begins) and said.endswith(ends)
    assert "2" not in said and "print" not in said


def test_code_that_nobody_closes_is_left() -> None:
    for text in ("<llm-code>\nx = 3\n\\boxed{3}", "```python\nx = 3\n\\boxed{3}", "<llm-code-output>\n3"):
        assert without_code(text) == text


@pytest.mark.parametrize(
    ("trace", "drops"),
    [({"executions": 1}, False), ({"executions": 0}, True), ({"executions": 2, "results": 0}, True), ([1], True),
     ({"executions": "one"}, True), ({"executions": 0, "results": 1}, False)],
)  # fmt: skip
def test_outputs_are_held_against_what_was_executed(trace: object, drops: bool) -> None:
    row = {"problem": "p", "generation": tagged("1", "1"), "trace": trace}
    assert apply(row, [Step("invented_output")])[1] == ("invented_output" if drops else None)
    assert apply(row | {"generation": "In words: 1."}, [Step("invented_output")])[1] is None


@pytest.mark.parametrize(
    ("step", "solution", "drops"),
    [
        ("no_code", "words", True),
        ("no_code", fenced("x", "1"), False),
        ("no_code", "```json\n{}\n```", True),
        ("code_error", tagged("1/0", "Traceback (most recent call last):\n ...\nZeroDivisionError: division by zero"), True),
        ("code_error", tagged("x", "NameError: name 'x' is not defined"), True),
        ("code_error", tagged("x", "Execution error: no"), True),
        ("code_error", fenced("x", "Timed out after 10 s"), True),
        ("code_error", tagged("x", "<not_executed>"), True),
        ("code_error", tagged("print(relative_error)", "relative error: 0.1"), False),
        ("code_error", tagged("print('NameError')", "The word NameErrors: 2"), False),
        ("code_error", "NameError: in words alone", False),
        ("code_error", "<llm-code>\n1\n</llm-code>", False),
        ("code_after_answer", r"\boxed{2}" + "\n" + tagged("x", "2"), True),
        ("code_after_answer", tagged("x", "2") + r"\boxed{2}", False),
        ("code_after_answer", r"\boxed{2}", False),
        ("verification_code", "So it is 4.\nLet us verify this with code.\n" + tagged("2 + 2", "4"), True),
        ("verification_code", "So it is 4.\n" + tagged("# check the answer\n2 + 2", "4"), True),
        ("verification_code", "We compute.\n" + tagged("2 + 2", "4") + "Let us check:\n" + tagged("4", "4"), False),
        ("verification_code", "He cashes a check of $3.\nWe add.\n" + tagged("2 + 2", "4"), False),
        ("verification_code", "words", False),
        ("unused_code_output", tagged("2 + 2", "4") + "So it is 4.", False),
        ("unused_code_output", tagged("2 + 2", "4") + "So it is 5.", True),
        ("unused_code_output", tagged("10 / 3", "3.3333333333") + "about 3.33", False),
        ("unused_code_output", tagged("20 / 3", "6.6666666667") + "about 6.67", False),
        ("unused_code_output", tagged("20 / 3", "6.6666666667") + "about 6.5", True),
        ("unused_code_output", tagged("1200", "1200") + "that is 1,200.", False),
        ("unused_code_output", tagged("x", "") + "So 5.", True),
        ("unused_code_output", tagged("x", "True") + "It is true.", False),
        ("unused_code_output", tagged("a", "7") + tagged("b = 7", "9") + "It is 11.", False),
        ("unused_code_output", "words", False),
    ],
)  # fmt: skip
def test_use_of_code(step: str, solution: str, drops: bool) -> None:
    assert apply({"problem": "p", "generation": solution}, [Step(step)])[1] == (step if drops else None)


def test_an_error_that_was_made_good_can_stay() -> None:
    row = {"problem": "p", "generation": tagged("x", "NameError: x") + tagged("y", "4") + "4"}
    assert apply(row, [Step("code_error")])[1] == "code_error"
    assert apply(row, [Step("code_error", {"last_only": True})])[1] is None


# OpenMathInstruct-1's rules, for 0 to 4 solutions with code of 4 in all: (those with code stay, those in words stay)
TRUTH = {
    "any_code": [(True, True), (True, False), (True, False), (True, False), (True, False)],
    "majority_code": [(True, True), (True, True), (True, True), (True, False), (True, False)],
    "majority_text": [(False, True), (False, True), (False, True), (True, False), (True, False)],
    "all": [(True, False)] * 5,
    "none": [(True, True)] * 5,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_code", range(5))
def test_selection_truth_table(mode: str, num_code: int) -> None:
    uses_code = [index < num_code for index in range(4)]
    code_stays, text_stays = TRUTH[mode][num_code]
    expected = [
        None if (code_stays if code else text_stays) else ("has_code" if code else "has_no_code") for code in uses_code
    ]
    assert select(uses_code, mode) == expected


@pytest.mark.parametrize(("num_code", "most"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_majority_of_three_is_two(num_code: int, most: bool) -> None:
    """N // 2 is 1."""
    uses_code = [index < num_code for index in range(3)]
    kept = {
        mode: [reason is None for reason in select(uses_code, mode)] for mode in ("majority_code", "majority_text")
    }
    assert kept["majority_code"] == [code or not most for code in uses_code]
    assert kept["majority_text"] == [code is most for code in uses_code]


def test_a_majority_of_the_samples_before_filters() -> None:
    assert select([True, True, False], "majority_text") == [None, None, "has_no_code"]
    assert select([True, True, False], "majority_text", total=8) == ["has_code", "has_code", None]
    assert select([True, True, False], "majority_code", total=8) == [None, None, None]
    assert set(TRUTH) == set(MODES)


def test_broken_code_is_no_code() -> None:
    assert has_code(fenced("x", "1")) and not has_code("<llm-code>x")
