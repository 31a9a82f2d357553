"""Find what a problem may be a copy of: exact matches, n-grams, and the problems to ask a judge about.

search = Search(tests, Methods(ngrams=(10,), retrieval=("tfidf",), encoder="", top_k=5, top_k_of="all",
                                number_matches=0, rule=True))
search([{"id": "1", "problem": "Ava has 7 pens ...", "expected_answer": "19"}])
    -> [Found(hits=[Hit(test=12, method="rule", score=0.83)], near=[(12, 0.83), (407, 0.31), ...])]
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from nemo_ext.curation.contamination.ngrams import NgramIndex, exact_form
from nemo_ext.curation.contamination.retrieve import NOTHING, Nearest, Retriever
from nemo_ext.curation.contamination.same_problem import Features, features, same_problem
from nemo_ext.rows.row import Row

EXACT, RULE, LLM = "exact", "rule", "llm"
RETRIEVAL = ("tfidf", "dense")


@dataclass(frozen=True, kw_only=True)
class Methods:
    """Beside the exact match, which is always looked for."""

    ngrams: tuple[int, ...]
    """Lengths in words; none: no n-gram is looked for."""
    retrieval: tuple[str, ...]
    """Names from RETRIEVAL: how candidates for a judge are found. Empty: no judge will ask."""
    encoder: str
    """The encoder of dense retrieval: a sentence-transformers model, a folder or a name."""
    top_k: int
    """Candidates."""
    top_k_of: str
    """all: so many of all benchmarks' problems together; each: of each benchmark's."""
    number_matches: int
    """Besides, so many of each benchmark's problems with exactly the same numbers."""
    rule: bool
    """Judge the candidates by the rule, here and now."""


@dataclass(frozen=True)
class Hit:
    """Why a problem is called a copy of test problem `test` (its place in `by_benchmark`'s order)."""

    test: int
    method: str
    """exact, <n>-gram, rule or llm."""
    score: float
    """exact 1, n-gram the share of the test problem's n-grams, a judge's candidate its cosine (0: found by its numbers)."""
    words: str = ""
    """The run of words that both have, where an n-gram matched."""
    replies: dict[str, str] = field(default_factory=dict)
    """An LLM judge's replies, by order: problem_first, benchmark_first."""


@dataclass(frozen=True)
class Found:
    hits: list[Hit]
    """The strongest evidence first: exact, the longest n-gram, then a judge's in the order of similarity."""
    near: list[tuple[int, float]]
    """(test, cosine) of what a judge is still to compare, the most similar first; none once the rule has."""

    def as_row(self) -> Row:
        return {"hits": [asdict(hit) for hit in self.hits], "near": self.near}


def found_of(row: Row) -> Found:
    return Found([Hit(**hit) for hit in row["hits"]], [(test, score) for test, score in row["near"]])


class _Retrieves(Protocol):
    def top_k(self, queries: Sequence[str], k: int) -> Nearest: ...


def by_benchmark(tests: Sequence[Row]) -> list[Row]:
    """The test problems, those of a benchmark together: the order that Hit.test counts in."""
    return sorted(tests, key=lambda row: row["benchmark"])


class Search:
    """All methods over the same benchmark problems, for chunks of problems.

    Args:
        tests: rows with benchmark, problem and expected_answer (None where there is none), in `by_benchmark`'s order.
    """

    def __init__(self, tests: Sequence[Row], methods: Methods) -> None:
        self._methods = methods
        texts = [row["problem"] for row in tests]
        corpora: dict[str, list[str]] = {}
        for row in tests:
            corpora.setdefault(row["benchmark"], []).append(row["problem"])
        self._exact: dict[str, list[int]] = {}
        for index, form in enumerate(map(exact_form, texts)):
            if form:  # a text of punctuation alone is no copy of another
                self._exact.setdefault(form, []).append(index)
        self._ngrams = NgramIndex(texts, methods.ngrams) if methods.ngrams else None
        searched = [texts] if methods.top_k_of == "all" else list(corpora.values())
        self._retrievers = [_retriever(name, searched, methods) for name in methods.retrieval]
        self._answers = [row["expected_answer"] for row in tests]
        wanted = methods.retrieval and (methods.rule or methods.number_matches)
        self._features = [features(text) for text in texts] if wanted else []
        self._by_numbers: dict[tuple[str, ...], dict[str, list[int]]] = {}
        for index, each in enumerate(self._features if methods.number_matches else []):
            of_numbers = self._by_numbers.setdefault(each.numbers, {})
            of_numbers.setdefault(tests[index]["benchmark"], []).append(index)

    def __call__(self, problems: Sequence[Row]) -> list[Found]:
        """`problems` have problem and expected_answer; one Found each, in order."""
        texts = [row["problem"] for row in problems]
        near: list[dict[int, float]] = [{} for _ in texts]
        for retriever in self._retrievers:
            nearest = retriever.top_k(texts, self._methods.top_k)
            for known, indices, scores in zip(near, nearest.indices.tolist(), nearest.scores.tolist(), strict=True):
                for index, score in zip(indices, scores, strict=True):
                    if index != NOTHING:
                        known.setdefault(index, score)
        overlaps = self._ngrams.find(texts) if self._ngrams else [[] for _ in texts]
        found = []
        for row, text, candidates, shared in zip(problems, texts, near, overlaps, strict=True):
            hits = [Hit(index, EXACT, 1.0) for index in self._exact.get(exact_form(text), ())]
            hits += [Hit(each.index, f"{each.n}-gram", round(each.share, 4), each.words) for each in shared]
            own = features(text) if self._features else None
            ranked = self._ranked(candidates, own)
            if own is not None and self._methods.rule:
                hits += self._judged(own, row["expected_answer"], ranked)
                ranked = []
            found.append(Found(hits, ranked))
        return found

    def _ranked(self, near: dict[int, float], own: Features | None) -> list[tuple[int, float]]:
        alike = self._by_numbers.get(own.numbers, {}) if own is not None else {}
        for indices in alike.values():
            for index in indices[: self._methods.number_matches]:
                near.setdefault(index, 0.0)
        return sorted(((index, round(score, 5)) for index, score in near.items()), key=lambda hit: (-hit[1], hit[0]))

    def _judged(self, own: Features, answer: str | None, ranked: list[tuple[int, float]]) -> list[Hit]:
        hits = []
        for index, score in ranked:
            other = self._answers[index]
            same_answer = None if answer is None or other is None else answer == other
            if same_problem(own, self._features[index], same_answer):
                hits.append(Hit(index, RULE, score))
        return hits


def _retriever(name: str, corpora: list[list[str]], methods: Methods) -> _Retrieves:
    if name == "tfidf":
        return Retriever(corpora)
    from nemo_ext.curation.contamination.dense_retrieval import DenseRetriever

    return DenseRetriever(corpora, methods.encoder)


def evidence(hit: Hit, test: Row) -> dict[str, Any]:
    """The hit as a row keeps it."""
    kept: dict[str, Any] = {
        "benchmark": test["benchmark"],
        "id": str(test["id"]),
        "problem": test["problem"],
        "method": hit.method,
        "score": round(hit.score, 4),
    }
    return kept | ({"words": hit.words} if hit.words else {}) | ({"replies": hit.replies} if hit.replies else {})
