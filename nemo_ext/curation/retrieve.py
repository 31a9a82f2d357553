"""The benchmark problems most like a given one, by the words they share (TF-IDF, cosine).

The lexical default where no encoder is at hand; OpenMathInstruct-2 used a sentence encoder (multi-qa-MiniLM-L6-cos-v1)
with k = 5.
"""

import re
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

_SCORES_AT_ONCE = 8_000_000  # float32, so 32 MB of dense scores whatever the corpus


class Retriever:
    """Search over `corpus`; words and word pairs, numbers and single characters included."""

    def __init__(self, corpus: Sequence[str]) -> None:
        if not corpus:
            raise ValueError("Retriever: the corpus is empty; check that the benchmark files have rows")
        # The default pattern drops words of one character: every digit and every variable.
        words = re.compile(r"\\?\w+").findall
        self._vectorizer = TfidfVectorizer(
            tokenizer=words, token_pattern=None, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32
        )
        self._corpus = self._vectorizer.fit_transform(corpus).T.tocsr()

    def top_k(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """For each query its `k` best (corpus index, cosine in [0, 1]), best first, ties by index."""
        if k < 1:
            raise ValueError(f"Retriever.top_k: k must be at least 1, got {k}")
        size = self._corpus.shape[1]
        step = max(1, _SCORES_AT_ONCE // size)
        found: list[list[tuple[int, float]]] = []
        for start in range(0, len(queries), step):
            vectors = self._vectorizer.transform(queries[start : start + step])
            # Rounding makes scores that are equal on paper equal here, whatever the order of the sums.
            scores = np.round((vectors @ self._corpus).toarray(), 5)
            found.extend(_best(row, min(k, size)) for row in scores)
        return found


def _best(scores: np.ndarray, k: int) -> list[tuple[int, float]]:
    threshold = np.partition(scores, -k)[-k]
    candidates = np.flatnonzero(scores >= threshold)
    order = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
    return [(int(index), float(scores[index])) for index in order]
