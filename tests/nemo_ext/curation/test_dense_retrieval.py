"""With a tiny encoder of random weights, made here: the package's own loading, pooling and batching are real."""

import sys
from pathlib import Path

import numpy as np
import pytest

from nemo_ext.curation.contamination.candidates import Methods, Search, by_benchmark
from nemo_ext.curation.contamination.dense_retrieval import DenseRetriever
from nemo_ext.curation.contamination.retrieve import NOTHING
from tests.tiny_tokenizer import make_tokenizer

sentence_transformers = pytest.importorskip("sentence_transformers")
GSM8K = ["Ava has 7 pens and buys 3 boxes.", "A train leaves at noon.", "Ben sells 12 eggs."]
MATH = ["Find $x$ if $2x = 6$.", "Compute $3!$."]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A one-layer BERT with mean pooling."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    source = tmp_path_factory.mktemp("bert")
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(source).hf_path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.save_pretrained(source)
    BertModel(BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )).save_pretrained(source)  # fmt: skip
    folder = tmp_path_factory.mktemp("encoder")
    sentence_transformers.SentenceTransformer(str(source), device="cpu").save(str(folder))
    return str(folder)


def test_nearest_by_the_encoder_s_cosine(encoder: str) -> None:
    queries = [GSM8K[2], MATH[1], "Something else?"]
    nearest = DenseRetriever([GSM8K, MATH], encoder).top_k(queries, 2)
    assert nearest.indices.shape == (3, 4)
    assert (nearest.indices[0, 0], nearest.indices[1, 2]) == (2, 4), "a text is most like itself"
    assert nearest.scores[0, 0] == pytest.approx(1, abs=1e-4)
    model = sentence_transformers.SentenceTransformer(encoder, device="cpu")
    vectors = model.encode([*GSM8K, *MATH, *queries], normalize_embeddings=True)
    cosines = vectors[5:] @ vectors[:5].T
    for row in range(3):
        for indices, scores in ((nearest.indices[row, :2], nearest.scores[row, :2]), (nearest.indices[row, 2:], nearest.scores[row, 2:])):  # fmt: skip
            assert scores == pytest.approx(np.clip(cosines[row, indices], 0, 1), abs=1e-4)
            assert scores[0] >= scores[1]
    assert DenseRetriever([GSM8K], encoder).top_k([], 2).indices.shape == (0, 2)


def test_search_joins_both_retrievals(encoder: str) -> None:
    tests = by_benchmark([
        {"id": str(i), "benchmark": "b", "problem": text, "expected_answer": None} for i, text in enumerate(GSM8K)
    ])  # fmt: skip
    problem = {"id": "p", "problem": "A train leaves", "expected_answer": None}

    def near(*retrieval: str) -> dict[int, float]:
        methods = Methods(
            ngrams=(), retrieval=retrieval, encoder=encoder, top_k=2, top_k_of="each", number_matches=0, rule=False
        )
        (found,) = Search(tests, methods)([problem])
        return dict(found.near)

    lexical, dense = near("tfidf"), near("dense")
    assert near("tfidf", "dense") == dense | lexical, "with the score of the first that found it"
    assert NOTHING not in dense and len(dense) == 2


def test_what_is_missing_is_said(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"encoder=.*/none: no such folder"):
        DenseRetriever([GSM8K], str(tmp_path / "none"))
    with pytest.raises(ValueError, match="not a sentence-transformers model that can be loaded"):
        DenseRetriever([GSM8K], str(tmp_path))
    with pytest.raises(ValueError, match="a corpus is empty"):
        DenseRetriever([GSM8K, []], encoder)
    with pytest.raises(ValueError, match="k must be at least 1"):
        DenseRetriever([GSM8K], encoder).top_k(["x"], 0)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        ValueError, match=r"needs the package sentence-transformers: pip install .* retrieval=\[tfidf\]"
    ):
        DenseRetriever([GSM8K], encoder)
