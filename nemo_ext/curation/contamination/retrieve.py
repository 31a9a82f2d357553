"""The benchmark problems most like a given one, by the words they share (TF-IDF, cosine).

The lexical default where no encoder is at hand; OpenMathInstruct-2 used a sentence encoder (dense_retrieval.py) with
k = 5.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import ThreadpoolController

Array = np.ndarray
SCORES_AT_ONCE = 4_000_000  # float32, so 16 MB of dense scores whatever the corpora
# A term of more texts than this share costs less as a column of a dense product than as a list of postings.
COMMON_SHARE = 0.05
DIGITS = 5  # of a score: rounding makes scores that are equal on paper equal here, whatever the order of the sums
NOTHING = -1

_words = re.compile(r"\\?\w+").findall  # digits and variables of one character included, which sklearn's default drops


@dataclass(frozen=True)
class Nearest:
    """The best texts of each query, the columns of one corpus after those of the one before, best first."""

    indices: Array
    """[queries, sum of min(k, len(corpus))] int32, into the corpora laid end to end; NOTHING where no word is shared."""
    scores: Array
    """The cosines, float32 in [0, 1]."""


class Retriever:
    """Search over several corpora, one a benchmark, each with document frequencies of its own.

    Terms are words and pairs of neighbouring words, weighted as scikit-learn's TfidfVectorizer(ngram_range=(1, 2),
    sublinear_tf=True) weights them.

    Raises:
        ValueError: a corpus is empty.
    """

    def __init__(self, corpora: Sequence[Sequence[str]]) -> None:
        if not corpora or not all(corpora):
            raise ValueError("Retriever: a corpus is empty; check that the benchmark files have rows")
        texts = [text for corpus in corpora for text in corpus]
        self._terms = _Terms(texts)
        ends = np.cumsum([len(corpus) for corpus in corpora])
        self._spans = [(int(end) - len(corpus), int(end)) for corpus, end in zip(corpora, ends, strict=True)]
        counts = self._terms.weights(texts)
        self._squared_idf = np.empty((counts.shape[1], len(corpora)), dtype=np.float32)
        weighted = counts.astype(np.float64)
        of_row = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
        for number, (start, end) in enumerate(self._spans):
            idf = _idf(counts[start:end])
            self._squared_idf[:, number] = idf**2
            here = (of_row >= start) & (of_row < end)
            norms = np.sqrt(np.bincount(of_row, (weighted.data * idf[counts.indices]) ** 2 * here, len(texts)))
            # the query's own idf is folded into the text, so that one product serves every corpus
            weighted.data[here] *= (idf[counts.indices] ** 2 / np.maximum(norms, 1e-12)[of_row])[here]
        self._split(weighted.astype(np.float32).tocsc(), len(texts))
        self._blas = ThreadpoolController()

    def _split(self, weighted: csr_matrix, size: int) -> None:
        """Common terms into a dense matrix, rare ones into lists of postings."""
        common = np.flatnonzero(np.diff(weighted.indptr) > COMMON_SHARE * size)
        self._slot = np.full(weighted.shape[1], NOTHING, dtype=np.int32)
        self._slot[common] = np.arange(len(common))
        self._common = np.ascontiguousarray(weighted[:, common].toarray().T)
        self._postings = weighted.T.tocsr()

    def top_k(self, queries: Sequence[str], k: int) -> Nearest:
        """The `k` texts of each corpus most like each query, ties in the order of the corpus.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"Retriever.top_k: k must be at least 1, got {k}")
        step = max(1, SCORES_AT_ONCE // self._spans[-1][1])
        with self._blas.limit(limits=1):  # the number of threads may decide the last digit
            blocks = [self._block(queries[start : start + step], k) for start in range(0, len(queries), step)]
        if not blocks:
            width = sum(min(k, end - start) for start, end in self._spans)
            return Nearest(np.empty((0, width), np.int32), np.empty((0, width), np.float32))
        return Nearest(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))

    def _block(self, queries: Sequence[str], k: int) -> tuple[Array, Array]:
        weights = self._terms.weights(queries)
        norms = np.sqrt(weights.power(2) @ self._squared_idf)
        scores = self._products(weights)
        columns = []
        for number, (start, end) in enumerate(self._spans):
            part = scores[:, start:end]
            part /= np.maximum(norms[:, number, None], 1e-12)
            indices, best = best_of(part, k)
            columns.append((np.where(best > 0, indices + start, NOTHING), best))
        found, best_scores = (np.concatenate(parts, axis=1) for parts in zip(*columns, strict=True))
        return found.astype(np.int32), best_scores

    def _products(self, weights: csr_matrix) -> Array:
        """[queries, texts] float32."""
        count, size = weights.shape[0], self._postings.shape[1]
        rows = np.repeat(np.arange(count), np.diff(weights.indptr))
        slots = self._slot[weights.indices]
        is_common = slots != NOTHING
        dense = np.zeros((count, len(self._common)), dtype=np.float32)
        dense[rows[is_common], slots[is_common]] = weights.data[is_common]
        scores = dense @ self._common
        rare = ~is_common
        kept = csr_matrix((weights.data[rare], weights.indices[rare], _indptr(rows[rare], count)), weights.shape)
        product = kept @ self._postings
        places = np.repeat(np.arange(count, dtype=np.int64) * size, np.diff(product.indptr)) + product.indices
        scores.reshape(-1)[places] += product.data
        return scores


def best_of(scores: Array, k: int) -> tuple[Array, Array]:
    """(places, rounded values) of the `k` greatest of each row of [rows, texts], greatest first, ties by place."""
    k = min(k, scores.shape[1])
    least = np.partition(scores, -k, axis=1)[:, -k, None]
    rows, places = np.nonzero(scores >= least - 10.0**-DIGITS)  # with all that rounding may make equal to it
    values = np.round(scores[rows, places], DIGITS)
    order = np.lexsort((places, -values, rows))
    first = _indptr(rows, len(scores))[:-1]
    chosen = order[(first[:, None] + np.arange(k)).ravel()]
    return places[chosen].reshape(-1, k), values[chosen].reshape(-1, k)


class _Terms:
    """The words and pairs of neighbouring words of some texts, numbered."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._ids: dict[str, int] = {}
        number = self._ids.setdefault
        ids, of_text = _flat([[number(word, len(self._ids)) for word in _words(text.lower())] for text in texts])
        self._pairs = np.unique(self._pair_keys(ids, of_text)[0])

    @property
    def count(self) -> int:
        return len(self._ids) + len(self._pairs)

    def _pair_keys(self, ids: Array, of_text: Array) -> tuple[Array, Array]:
        known = (ids[:-1] >= 0) & (ids[1:] >= 0) & (of_text[:-1] == of_text[1:])
        return ids[:-1][known] * len(self._ids) + ids[1:][known], of_text[:-1][known]

    def weights(self, texts: Sequence[str]) -> csr_matrix:
        """[texts, terms] float32: 1 + ln(count) of each known term."""
        get = self._ids.get
        ids, of_text = _flat([[get(word, NOTHING) for word in _words(text.lower())] for text in texts])
        keys, of_pair = self._pair_keys(ids, of_text)
        places = np.searchsorted(self._pairs, keys)
        places[places == len(self._pairs)] = 0
        seen = self._pairs[places] == keys if len(self._pairs) else np.zeros(len(keys), dtype=bool)
        known = ids >= 0
        terms = np.concatenate([ids[known], len(self._ids) + places[seen]])
        of_term = np.concatenate([of_text[known], of_pair[seen]])
        unique, counts = np.unique(of_term * self.count + terms, return_counts=True)
        rows = unique // max(1, self.count)
        data = (1 + np.log(counts)).astype(np.float32)
        return csr_matrix((data, unique - rows * self.count, _indptr(rows, len(texts))), (len(texts), self.count))


def _flat(ids: list[list[int]]) -> tuple[Array, Array]:
    """(all ids, of each the text it is in)."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum())), np.repeat(np.arange(len(ids)), lengths)


def _indptr(rows: Array, count: int) -> Array:
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])


def _idf(counts: csr_matrix) -> Array:
    """Inverse document frequencies, as if one more text held every term; 0 for a term that no text has."""
    texts = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.where(texts > 0, np.log((1 + counts.shape[0]) / (1 + texts)) + 1, 0.0)
