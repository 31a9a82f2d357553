"""Any text may come as a solution or an answer: nothing raises, nothing stalls, and equality is what its name says."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemo_ext.grading.equal import EQUAL, UNDECIDED, Grader, Verdict, fast_verdict
from nemo_ext.grading.extract import EXTRACTORS, extract_answer
from nemo_ext.grading.graders import rule_of

SPELLINGS = r"""1 2 0 10 5. .5 0.50 1,000 x y e i n X 3x \pi \frac \frac{1}{2} \frac12 \dfrac{ \sqrt \sqrt[3]{ \sqrt{8} ^ ^{2} ^{-1} _ _1
    { } ( ) [ ] \{ \} | + - \pm * / \cdot \times ! % \% \$ $ , ; : . = < > \le \in \cup \infty \left( \right) \text{ cm} dollars
    \text{and} or (C) C. AM 11:30 \sin \log \ln \cos^ ^\circ \begin{pmatrix} \end{pmatrix} & \\ \pmod{7} \binom{4}{2} \emptyset
    10^{10^{10}} \boxed{ \boxed \fbox{ #### answer to \equiv \ldots \begin{cases} \end{cases} hours girls north ** \mid \ne \mathbb{R}
    \setminus 2:3 € if"""
PIECES = st.sampled_from(SPELLINGS.split())
answers = (
    st.lists(PIECES, max_size=12).map("".join) | st.lists(PIECES, max_size=8).map(" ".join) | st.text(max_size=30)
)


@settings(max_examples=250)
@given(answers, answers)
@example("0/0", "0")
@example("\\frac{1}{0}", "1")
@example("x" * 1000, "x" * 1001)
@example("\x00", "\ud800")
def test_rules_never_raise_and_are_symmetric(left: str, right: str) -> None:
    for name in ("default", "integer_mod_1000", "hendrycks"):
        forward, backward = rule_of(name)(left, right), rule_of(name)(right, left)
        if name != "integer_mod_1000" and left.strip() and right.strip():
            assert (forward and forward.equality) == (backward and backward.equality), name
        assert forward is None or forward.equal in (True, False, None)


@settings(max_examples=250)
@given(answers)
def test_an_answer_equals_itself_in_dollars_and_spaces(answer: str) -> None:
    if answer.strip():
        assert fast_verdict(answer, answer) == Verdict(EQUAL, "exact")
        padded = fast_verdict(f" {answer} ", answer)
        assert padded is not None and padded.equality in (EQUAL, UNDECIDED)


@settings(max_examples=250)
@given(st.lists(PIECES, max_size=20).map("".join) | st.text(), st.sampled_from(sorted(EXTRACTORS)))
def test_extraction_never_raises_and_finds_a_part_of_the_text(text: str, extractor: str) -> None:
    found = extract_answer(text, extractor)
    assert found is None or (found and (found.upper() in text.upper()))


BOMBS = {
    "a tower of powers": ("10^{10^{10}}", "10^{10^{11}}"),
    "a taller tower": ("9^{9^{9^{9^{9}}}}", "9^{9^{9^{9}}}+1"),
    "powers of e": ("e^{e^{e^{e^{e}}}}", "5"),
    "10,000 braces": ("{" * 10_000, "5"),
    "900 braces": ("{" * 900, "5"),
    "400 brackets": ("(" * 400 + "1" + ")" * 400, "1"),
    "fractions nested 5,000 deep": ("\\frac{1}{" * 5000 + "2" + "}" * 5000, "2"),
    "fractions nested 90 deep": ("\\frac{1}{" * 90 + "2" + "}" * 90, "2"),
    "roots nested 130 deep": ("\\sqrt{" * 130 + "2" + "}" * 130, "1"),
    "450 slashes": ("1/" * 450 + "1", "2"),
    "450 terms": ("1+" * 450 + "1", "452"),
    "250 members": ("\\sin1," * 125 + "1", "\\sin2," * 125 + "1"),
    "a large factorial": ("100000!", "5"),
    "a large binomial": ("\\binom{100000}{50000}", "5"),
    "a million digits": ("9" * 1_000_000, "9" * 1_000_001),
    "many signs": ("-" * 900 + "5", "6"),
    "many signs of an exponent": ("x^" + "-" * 900 + "2", "6"),
    "many signs of a denominator": ("1/" + "-" * 900 + "2", "6"),
    "many plus-minus": ("\\pm1" * 200, "5"),
    "many words": ("a b " * 240, "5"),
    "many dollars": ("$" * 1000, "5"),
    "many spaces": (" " * 998 + "x", "5"),
    "many letters and a digit": ("a" * 900 + "1", "5"),
    "many abbreviations": ("5 " + "a. " * 300 + "1", "5"),
    "many units": ("\\pi" + " cm" * 300 + "!", "5"),
    "many units that end": ("\\pi" + " per hour" * 100, "5"),
    "words run together": (
        "[\\begin{cases}northnorthintegersdollarsboys11:30",
        "1,000 \\ne ** \\pmod{7} [ 1,000 m} **",
    ),
    "many names": ("abcd " * 190 + "=", "5"),
    "many conditions": ("x>1 or " * 140 + "x<0", "x<5"),
    "many ratios": ("1:" * 450 + "1", "1:2"),
    "many digits and dots": ("0." + "12" * 90 + "\\ldots", "5"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_cheap_and_never_equal(name: str) -> None:
    fast_verdict("\\sqrt{7}", "3")  # the imports
    start = time.process_time()
    found = fast_verdict(*BOMBS[name])
    # milliseconds each; sympy would take seconds to hours, and this much is far above any machine's noise
    assert time.process_time() - start < 2
    assert found is None or not found


def test_a_bomb_for_computer_algebra_ends_at_its_limit_and_the_next_pair_is_graded() -> None:
    with Grader(timeout_s=0.5) as grader:
        bombs = [(r"\prod_{k=1}^{10^{8}} k", "3"), (r"\sum_{n=1}^{\infty} \frac{\sin(n^{n^{n}})}{n!!}", "1")]
        found = list(grader.grade([*bombs, (r"\log 100", "2")]))
    assert not found[0] and not found[1]
    assert found[2]


@pytest.mark.parametrize("extractor", sorted(EXTRACTORS))
@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed{}",
        "}",
        "\\fbox",
        "####",
        "The answer is ",
        "Answer: ",
        "(A) ",
        "\\\\",
        "\\\\boxed{",
        "<think>",
        "<think>a</think>",
        "\\boxed\\frac{",
        "The answer is:\n",
        "a" * 9 + "\n",
        "* ",
    ],
)
def test_extraction_is_linear(extractor: str, piece: str) -> None:
    def seconds(repeats: int) -> float:
        text, start = piece * repeats, time.process_time()
        extract_answer(text, extractor)
        return time.process_time() - start

    seconds(10)
    # ten times the text may cost ten times as much, not a hundred times; 40 and more tries are for a busy machine
    assert any(seconds(30_000) < 40 * max(seconds(3_000), 5e-3) for _ in range(5))
