import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from nemo_ext.curation.contamination import retrieve
from nemo_ext.curation.contamination.retrieve import NOTHING, Retriever, best_of

corpora = st.lists(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "7", "\\frac", "long"]), min_size=1, max_size=8), min_size=1), min_size=1, max_size=3
).map(lambda nested: [[" ".join(words) for words in corpus] for corpus in nested])  # fmt: skip
queries = st.lists(
    st.lists(st.sampled_from(["A", "b", "c", "8", "\\frac", "?"]), max_size=9).map(" ".join), max_size=5
)


def plain(corpus: list[str], asked: list[str]) -> np.ndarray:
    """[queries, texts] cosines."""
    vectorizer = TfidfVectorizer(
        tokenizer=re.compile(r"\\?\w+").findall, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True
    )
    vectors = vectorizer.fit_transform(corpus)
    return (vectorizer.transform(asked) @ vectors.T).toarray()


@pytest.mark.parametrize("common_share", [-1.0, 0.3, 2.0])
@settings(max_examples=60)
@given(corpora=corpora, asked=queries, k=st.integers(1, 4))
def test_ranks_as_scikit_learn_does(common_share: float, corpora: list[list[str]], asked: list[str], k: int) -> None:
    """Whether terms are columns of the dense product, postings, or some of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieve, "COMMON_SHARE", common_share)
        nearest = Retriever(corpora).top_k(asked, k)
    column = first = 0
    for corpus in corpora:
        width = min(k, len(corpus))
        for row, scores in enumerate(plain(corpus, asked) if asked else []):
            expected = sorted(range(len(corpus)), key=lambda index: (-round(scores[index], 4), index))[:width]
            got = nearest.scores[row, column : column + width]
            assert got == pytest.approx([scores[index] for index in expected], abs=2e-4)
            indices = nearest.indices[row, column : column + width]
            assert all(index == NOTHING if score == 0 else first <= index < first + len(corpus) for index, score in zip(indices, got, strict=True))  # fmt: skip
            assert [scores[index - first] for index, score in zip(indices, got, strict=True) if score > 0] == pytest.approx(got[got > 0], abs=2e-4)  # fmt: skip
        column, first = column + width, first + len(corpus)
    assert nearest.indices.shape == nearest.scores.shape == (len(asked), column)


def test_each_corpus_has_its_own_best_and_frequencies() -> None:
    nearest = Retriever([["red pens", "blue pens"], ["green boxes", "seven red boxes"]]).top_k(
        ["red pens", "zzz"], k=1
    )
    assert nearest.indices.tolist() == [[0, 3], [NOTHING, NOTHING]]
    assert nearest.scores[0, 0] == 1.0 and 0 < nearest.scores[0, 1] < 1 and not nearest.scores[1].any()


def test_ties_go_by_place() -> None:
    assert Retriever([["a b", "b a b", "a b", "a b"]]).top_k(["a b"], k=2).indices.tolist() == [[0, 2]]
    assert best_of(np.array([[0.1, 0.300001, 0.3, 0.2]], dtype=np.float32), 2)[0].tolist() == [[1, 2]]
    assert best_of(np.array([[0.1, 0.3, 0.300001, 0.2]], dtype=np.float32), 1)[0].tolist() == [[1]], (
        "equal when rounded"
    )


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = [f"what is {i} plus {i * 7 % 13} times {i % 5}" for i in range(50)]
    asked = [f"what is {i} times {i % 13}" for i in range(40)]
    whole = Retriever([corpus]).top_k(asked, 5)
    monkeypatch.setattr(retrieve, "SCORES_AT_ONCE", 50 * 7)
    parts = Retriever([corpus]).top_k(asked, 5)
    assert (whole.indices == parts.indices).all() and whole.scores == pytest.approx(parts.scores, abs=1.1e-5)


def test_what_it_refuses() -> None:
    for corpora in ([], [["a"], []]):
        with pytest.raises(ValueError, match="a corpus is empty; check that the benchmark files have rows"):
            Retriever(corpora)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        Retriever([["a"]]).top_k(["a"], 0)


def test_texts_without_a_word() -> None:
    nearest = Retriever([["?", "a b"], ["\0"]]).top_k(["", "a b", "\0 !"], 5)
    assert nearest.indices.tolist() == [[NOTHING] * 3, [1, NOTHING, NOTHING], [NOTHING] * 3]
