"""Retrieval."""

import random

import pytest

from nemo_ext.curation.retrieve import Retriever


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
