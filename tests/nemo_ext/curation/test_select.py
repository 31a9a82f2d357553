"""Duplicates, downsampling and retrieval."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.curation.dedup import Deduper
from nemo_ext.curation.downsample import fair, random_sample
from nemo_ext.curation.retrieve import Retriever


def test_dedup_ignores_white_space_only() -> None:
    deduper = Deduper()
    assert not deduper.seen({"problem": "a b", "generation": "c"})
    assert deduper.seen({"problem": " a  b", "generation": "c\n"})
    assert not deduper.seen({"problem": "a", "generation": "b c"})
    assert not deduper.seen({"problem": "a B", "generation": "c"})
    assert not deduper.seen({"problem": "a b", "generation": "c", "generated_solution": "d"})
    assert deduper.seen({"problem": "a b", "generation": "e", "generated_solution": "d"})


problems = st.lists(st.sampled_from("abcde"), max_size=30)


def _round_robin_counts(problem_of_row: list[str], num: int) -> Counter[int]:
    """How many problems get how many rows, by literally dealing one row to each problem per round."""
    left = Counter(problem_of_row)
    taken: Counter[str] = Counter()
    while sum(taken.values()) < num and any(left.values()):
        for problem in sorted(left, key=lambda name: -left[name]):
            if left[problem] and sum(taken.values()) < num:
                left[problem] -= 1
                taken[problem] += 1
    return taken


@given(problems, st.integers(0, 40), st.integers(0, 5))
def test_fair_deals_rounds(problem_of_row: list[str], num: int, seed: int) -> None:
    chosen = fair(problem_of_row, num, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(num, len(problem_of_row))
    assert chosen == fair(problem_of_row, num, seed)
    available, taken = Counter(problem_of_row), Counter(problem_of_row[row] for row in chosen)
    full_rounds = min(
        (taken[name] for name in available if taken[name] < available[name]), default=len(problem_of_row)
    )
    assert all(min(available[name], full_rounds) <= taken[name] for name in available)
    assert all(taken[name] <= min(available[name], full_rounds + 1) for name in available)
    expected = _round_robin_counts(problem_of_row, num)
    assert sum(expected.values()) == sum(taken.values())
    assert max(expected.values(), default=0) == max(taken.values(), default=0)


def test_fair_takes_all_when_asked_for_all() -> None:
    assert fair(["a", "a", "b"], 3, seed=0) == [0, 1, 2]
    assert fair(["a", "a", "b"], 9, seed=0) == [0, 1, 2]
    assert fair([], 3, seed=0) == []


def test_which_rows_are_taken_depends_on_the_seed_not_on_file_order() -> None:
    rows = ["a"] * 50 + ["b"] * 50
    assert len({tuple(fair(rows, 2, seed)) for seed in range(20)}) > 10


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 3))
def test_random_sample(num_rows: int, num: int, seed: int) -> None:
    chosen = random_sample(num_rows, num, seed)
    assert chosen == sorted(set(chosen)) == random_sample(num_rows, num, seed)
    assert len(chosen) == min(num, num_rows)
    assert all(0 <= row < num_rows for row in chosen)


def test_negative_sizes_are_refused() -> None:
    for call in (lambda: fair(["a"], -1, 0), lambda: random_sample(3, -1, 0)):
        with pytest.raises(ValueError, match="-1"):
            call()


def test_retriever_finds_the_rewording_and_breaks_ties_by_index() -> None:
    corpus = ["A cat eats 3 fish a day.", "Solve $x^2 = 4$.", "A cat eats 3 fish a day.", "How far is the moon?"]
    hits = Retriever(corpus).top_k(["Each day a cat eats 3 fish", "zebra"], k=3)
    assert [index for index, _ in hits[0][:2]] == [0, 2]
    assert hits[0][0][1] > 0.5
    assert hits[1] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert [len(found) for found in Retriever(corpus).top_k(["cat"], k=9)] == [4]


def test_retriever_gives_the_same_in_any_chunking(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(40)]
    texts = [" ".join(rng.choices(words, k=8)) for _ in range(60)]
    retriever = Retriever(texts[:20])
    whole = retriever.top_k(texts, k=5)
    monkeypatch.setattr("nemo_ext.curation.retrieve._SCORES_AT_ONCE", 60)
    assert retriever.top_k(texts, k=5) == whole
    assert all(whole[i][0] == (i, 1.0) for i in range(20))


def test_retriever_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="empty"):
        Retriever([])
    with pytest.raises(ValueError, match="at least 1"):
        Retriever(["a b"]).top_k(["a"], k=0)
