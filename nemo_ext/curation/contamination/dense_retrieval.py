"""The benchmark problems most like a given one, by a sentence encoder's vectors (cosine).

OpenMathInstruct-2 used multi-qa-MiniLM-L6-cos-v1 in batches of 512. Needs the sentence-transformers package.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nemo_ext.curation.contamination.retrieve import NOTHING, Nearest, best_of

BATCH_SIZE = 512
QUERIES_AT_ONCE = 2048


class DenseRetriever:
    """Search over several corpora, one a benchmark, like retrieve.Retriever; on a GPU where there is one.

    Args:
        encoder: a model's folder, or its name in the cache or on the hub of Hugging Face.

    Raises:
        ValueError: a corpus is empty, the package is not installed, or there is no such model.
    """

    def __init__(self, corpora: Sequence[Sequence[str]], encoder: str) -> None:
        if not corpora or not all(corpora):
            raise ValueError("DenseRetriever: a corpus is empty; check that the benchmark files have rows")
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ValueError(
                "dense retrieval needs the package sentence-transformers: pip install sentence-transformers; or set "
                "retrieval=[tfidf], which needs nothing"
            ) from error
        if Path(encoder).is_absolute() and not Path(encoder).is_dir():
            raise ValueError(f"encoder={encoder}: no such folder")
        try:
            self._model = SentenceTransformer(encoder)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"encoder={encoder}: not a sentence-transformers model that can be loaded: {error}. Give the folder of "
                "one, such as multi-qa-MiniLM-L6-cos-v1, or a name that this machine has or may download"
            ) from error
        self._corpora = [self._encode(corpus) for corpus in corpora]

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, width] float32 of length 1."""
        return np.asarray(
            self._model.encode(list(texts), batch_size=BATCH_SIZE, normalize_embeddings=True, show_progress_bar=False),
            dtype=np.float32,
        )

    def top_k(self, queries: Sequence[str], k: int) -> Nearest:
        """The `k` texts of each corpus most like each query, ties in the order of the corpus.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"DenseRetriever.top_k: k must be at least 1, got {k}")
        starts = range(0, len(queries), QUERIES_AT_ONCE)
        blocks = [self._block(queries[start : start + QUERIES_AT_ONCE], k) for start in starts]
        width = sum(min(k, len(corpus)) for corpus in self._corpora)
        indices = np.concatenate([np.empty((0, width), np.int32), *(found for found, _ in blocks)])
        return Nearest(indices, np.concatenate([np.empty((0, width), np.float32), *(score for _, score in blocks)]))

    def _block(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        vectors = self._encode(queries)
        found, scores, start = [], [], 0
        for corpus in self._corpora:
            indices, best = best_of(vectors @ corpus.T, k)
            found.append(np.where(best > 0, indices + start, NOTHING).astype(np.int32))
            scores.append(np.clip(best, 0.0, 1.0))
            start += len(corpus)
        return np.concatenate(found, axis=1), np.concatenate(scores, axis=1)
