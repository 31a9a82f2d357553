import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.curation.contamination.ngrams import NgramIndex, exact_form, words

OPENING = "Let $x$ and $y$ be nonzero real numbers such that"
TEST = f"{OPENING} $xy = \\frac{{x}}{{y}} = x - y$. What is the value of $x + y$?"
OTHER = f"{OPENING} their sum is twice their product, and find the least number that their squares may add up to."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPENING, "let x and y be nonzero real numbers such that"),
        ("REAL  numbers,\n(positive) - ones.", "real numbers positive ones"),
        (r"$x^2+\frac{1}{2}$ x_1", "x2frac12 x1"),
        ("Zoë's «3»", "zoës 3"),
        ("", ""),
        (" \0 ? ", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Find $2+3$.", "find  2 + 3", True),
        ("What is x?\n", "what is X", True),
        ('He said "go".', "He said go", True),
        ("$1,000$ pens", "1, 000 pens", True),
        ("Find $2+3$.", "Find $2*3$.", False),
        ("Find $2+(3*4)$.", "Find $(2+3)*4$.", False),
        ("Find $2^{1+2}$.", "Find $2^1+2$.", False),
        ("Compute 5!", "Compute 5.", False),
        ("Find $f'(2)$.", "Find $f(2)$.", False),
        ("Compute 2.5", "Compute 25", False),
        ("Compute 12+3", "Compute 1+23", False),
        ("Solve $|x| = 5$", "Solve $x = 5$", False),
    ],
)
def test_exact_form(first: str, second: str, same: bool) -> None:
    assert (exact_form(first) == exact_form(second)) is same


def test_ten_words_in_common_are_a_10_gram_and_no_30_gram() -> None:
    """An opening that many problems have: the reason to ask for 30 words."""
    assert len(words(OPENING)) == 10
    assert NgramIndex([TEST], [30]).find([OTHER]) == [[]]
    (hit,) = NgramIndex([TEST], [10]).find([OTHER])[0]
    assert (hit.index, hit.n, hit.words) == (0, 10, " ".join(words(OPENING)))
    assert hit.share == 1 / (len(words(TEST)) - 9)
    assert NgramIndex([TEST], [11]).find([OTHER]) == [[]]


def test_a_text_of_fewer_words_has_no_ngram() -> None:
    short = "Find the sum of the digits."
    index = NgramIndex([short, TEST], [10, 6, 7])
    assert index.lengths == (10, 7, 6)
    assert (index.too_short(6), index.too_short(7)) == ([False, False], [True, False])
    assert [(hit.n, hit.share) for hit in index.find([short])[0]] == [(6, 1.0)], "the whole text, if it has n words"
    assert NgramIndex([short], [7]).find([short, "", "\0"]) == [[], [], []]


def test_hits_come_longest_first_and_a_repeated_ngram_counts_once() -> None:
    index = NgramIndex(["a b c d", "a b a b x", "c d"], [2, 4])
    found = [(hit.n, hit.index, round(hit.share, 2), hit.words) for hit in index.find(["z a b c d a b"])[0]]
    assert found == [
        (4, 0, 1.0, "a b c d"),
        (2, 0, 1.0, "a b"),
        (2, 2, 1.0, "c d"),
        (2, 1, 0.33, "a b"),
    ]


texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join), max_size=6)


@settings(max_examples=200)
@given(corpus=texts, queries=texts, n=st.integers(1, 4))
def test_finds_what_comparing_all_pairs_finds(corpus: list[str], queries: list[str], n: int) -> None:
    def grams(text: str) -> set[tuple[str, ...]]:
        split = text.split()
        return {tuple(split[start : start + n]) for start in range(len(split) - n + 1)}

    found = [{hit.index: hit.share for hit in hits} for hits in NgramIndex(corpus, [n]).find(queries)]
    assert found == [
        {
            index: len(grams(query) & grams(text)) / len(grams(text))
            for index, text in enumerate(corpus)
            if grams(query) & grams(text)
        }
        for query in queries
    ]


def test_a_problem_of_ten_megabytes() -> None:
    draw = random.Random(0)
    long = " ".join(draw.choices(words(TEST), k=2_000_000))
    (hits,) = NgramIndex([TEST], [10]).find([f"{long} {OPENING}"])
    assert [hit.index for hit in hits] == [0]
