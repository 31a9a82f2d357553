import time

import pytest

from nemo_ext.grading.extract import EXTRACTORS, extract_answer, last_box


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"first \boxed{5}, then \boxed{6}.", "6"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"\boxed{x = \boxed{7}}", "7"),
        (r"\boxed 5", "5"),
        (r"$\boxed 5$.", "5"),
        (r"\boxed 5.5, which", "5.5"),
        (r"\boxed {6}", "6"),
        ("\\boxed\n{6}", "6"),
        (r"\fbox{7}", "7"),
        (r"\boxed{8} and \boxed{9", "8"),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{}", None),
        (r"\boxed{3} or \boxed{ }", "3"),  # an empty box says nothing, so it does not take an answer back
        (r"\boxed{42}. (The result is in \boxed notation, as requested.)", "42"),
        (r"\boxed{42}. I have written it inside \boxed{} as the task demands.", "42"),
        (r"\boxed{17}, given with \boxed{...} as you wished.", "17"),
        (r"\boxed{17}, as \boxed{\ldots} or \boxed{your answer}", "17"),
        (r"\boxed{3}, and after the correction $\boxed\frac{7}{2}$.", r"\frac{7}{2}"),
        (r"\boxed{3}, no: $\boxed\sqrt{5}$, or \boxed-2.", "-2"),
        (r"\boxed{7}. Note \boxed{\,}, \boxed{\text{}}, \boxed{\quad} and \boxed{\_\_}.", "7"),
        (r"\boxed{7} as \boxed{\phantom{5}} or \boxed{[answer]}", "7"),
        (r"\boxed{\boxed{}}", None),
        (r"\boxed{\{\}}", r"\{\}"),
        (r"in \boxed notation", None),
        (r"\boxed x", "x"),
        (r"The answer is \\boxed{31}.", "31"),
        (r"\\boxed{\\frac{1}{2}}", r"\frac{1}{2}"),
        (r"a line ends \\\boxed{6}", "6"),
        ("<think>Let me try \\boxed{5}. Hmm.</think>The product is \\boxed{72}.", "72"),
        ("<think>Let me try \\boxed{5}. Hmm, that is wrong because", None),
        ("Let me try \\boxed{5}. Hmm.</think>So it is \\boxed{72}.", "72"),
        ("\\boxed{72}<think>or \\boxed{5}", "72"),
        ("<think>a <think>b</think> \\boxed{5}</think>\\boxed{6}", "6"),
        (r"\boxedx{3}", None),
        (r"\boxed{12\text{ cm}}", r"12\text{ cm}"),
        ("stray } brace \\boxed{4}", "4"),
        ("open { brace \\boxed{4}", "4"),
        ("", None),
        ("no answer here", None),
        (r"ends with \boxed", None),
    ],
)
def test_boxed(text: str, answer: str | None) -> None:
    assert extract_answer(text, "boxed") == answer
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("extractor", "text", "answer"),
    [
        ("the_answer_is", "The answer is 5.", "5"),
        ("the_answer_is", "The answer is: 3.5. Done.", "3.5"),
        ("the_answer_is", "The answer is 1\nno, the answer is: 2", "2"),
        ("the_answer_is", "the final answer is $x+1$.", "x+1"),
        ("the_answer_is", r"The answer is \boxed{8}.", "8"),
        ("the_answer_is", "The answer is", None),
        ("the_answer_is", "The answer island", None),
        ("hash", "sum\n#### 1,234", "1,234"),
        ("hash", "#### 1\n#### 2", "2"),
        ("hash", "####", None),
        ("hash", "none", None),
    ],
)
def test_other_extractors(extractor: str, text: str, answer: str | None) -> None:
    assert extract_answer(text, extractor) == answer


def test_unknown_extractor_names_the_choices() -> None:
    with pytest.raises(ValueError, match="default, boxed, the_answer_is, hash, letter"):
        extract_answer("5", "regex")
    assert set(EXTRACTORS) == {"default", "boxed", "the_answer_is", "hash", "letter"}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The answer is 5, so \boxed{6}", "6"),
        (r"The answer is 5. \boxed{6", "5"),
        (r"\boxed{} but the answer is 7.", "7"),
        ("The answer is 5\n#### 6", "5"),
        ("So 3 + 4 = 7\n#### 7", "7"),
        ("The answer is 3.5.", "3.5"),
        (r"The answer is \(x+1\).", "x+1"),
        (r"The final answer is: $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("The answer is **12**.", "12"),
        ("**Answer:** 7", "7"),
        ("Final answer: 7 apples", "7 apples"),
        ("The answer is (C).", "C"),
        ("The answer is C.", "C"),
        ("The answer is C", "C"),
        ("The answer is option B, since", "option B, since"),
        ("The answer is option B.", "B"),
        ("The answer is (b)", "B"),
        ("The answer is a lot.", "a lot"),
        ("The final answer is:\n**73**", "73"),
        ("The answer is:\n\n$73$", "73"),
        ("The answer is\n\\[\n73\n\\]", "73"),
        ("The answer is\nof no importance.", None),
        ("### Final Answer\n**73**", "73"),
        ("**Final Answer**\n\n73", "73"),
        ("**Answer:**\n73", "73"),
        ("## Answer\n## Notes", None),
        ("<think>Let me try \\boxed{5}. Hmm.</think>The product is 72. The answer is 72.", "72"),
        ("<think>The answer is 5, or rather", None),
        (r"The answer is \boxed{}.", None),
        ("The answer is (1, 2).", "(1, 2)"),
        ("nothing of the kind", None),
        ("", None),
    ],
)
def test_without_a_box_what_is_stated_counts(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{\text{(C)}}", "C"),
        (r"\boxed{\textbf{(C)}\ 12}", "C"),
        (r"\boxed{C}", "C"),
        (r"\boxed{D.}", "D"),
        ("The answer is (c).", "C"),
        ("(A) is too small and (B) too large, which leaves (D)", "D"),
        (r"\boxed{12}", None),
        ("no option", None),
    ],
)
def test_option_letters(text: str, answer: str | None) -> None:
    assert extract_answer(text, "letter") == answer


def test_box_positions_cover_the_whole_command() -> None:
    text = r"a \boxed{\text{b}} c"
    box = last_box(text)
    assert box is not None
    assert text[box.start : box.end] == r"\boxed{\text{b}}"
    text = r"<think>\boxed{1}</think> so \boxed{2}, in \boxed notation"
    box = last_box(text)
    assert box is not None
    assert text[box.start : box.end] == r"\boxed{2}"


def test_hostile_text_costs_linear_time() -> None:
    def seconds(repeats: int) -> float:
        start = time.process_time()
        extract_answer("\\boxed{" * repeats)
        return time.process_time() - start

    seconds(1000)
    # Ten times the text may cost ten times as much, not a hundred times; 40 leaves room for a busy machine.
    assert seconds(100_000) < 40 * max(seconds(10_000), 1e-3)
