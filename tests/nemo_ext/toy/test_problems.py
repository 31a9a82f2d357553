import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.toy import problems


@given(st.sampled_from(sorted(problems.KINDS)), st.integers(), st.integers(0, 1))
def test_every_wording_is_identified_and_its_arithmetic_holds(kind, seed, wording):
    rng = random.Random(seed)
    numbers = problems.draw_numbers(rng)
    toy = problems.make(kind, numbers, rng, wording)
    assert problems.identify(toy.problem) == toy.key
    for left, operator, right, result in problems.KINDS[kind].steps(*numbers):
        assert {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[operator] == result >= 0
    assert toy.solution.endswith(f"\\boxed{{{toy.expected_answer}}}.")
    assert "{" not in toy.problem


@pytest.mark.parametrize("source", problems.SOURCES)
def test_splits_share_no_task(source):
    keys = {
        split: {p.key for p in itertools.islice(problems.stream(split, source, 0), 2000)} for split in problems.SPLITS
    }
    for one, other in itertools.combinations(problems.SPLITS, 2):
        assert not keys[one] & keys[other]
    assert all(keys.values())


def test_the_same_seed_gives_the_same_problems():
    assert problems.distinct("test", "math", 100, 7) == problems.distinct("test", "math", 100, 7)
    assert problems.distinct("test", "math", 100, 7) != problems.distinct("test", "math", 100, 8)


def test_distinct_says_when_a_split_is_too_small():
    with pytest.raises(ValueError, match="only .* different problems"):
        problems.distinct("validation", "math", 10_000, 0)


def test_a_paraphrase_is_the_same_task_in_other_words():
    rng = random.Random(0)
    for toy in problems.distinct("test", "gsm8k", 50, 0):
        other = problems.paraphrase(toy, rng)
        assert other.key == toy.key and other.problem != toy.problem and other.expected_answer == toy.expected_answer


def test_text_that_is_no_toy_problem_has_no_key():
    assert problems.identify("How many roads must a man walk down?") is None
    assert problems.identify("Solve $3x + 4 = 20$ for $x$.") is None  # 16 / 3 is not whole: nothing we would write
