"""Ask several graders about rows' answers; each different pair of answers is decided once.

symbolic            our rules and computer algebra: the grader called `default` elsewhere
hendrycks, math_verify, integer, integer_mod_<n>     as nemo_ext/grading/graders.py has them
metamath            what follows "The answer is", compared as strings: hendrycks@the_answer_is
numina              whole numbers modulo 1000 out of the last box: integer_mod_1000@boxed
<grader>@<extractor>     any of them on an answer that another extractor finds
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Self

from nemo_ext.grading.answers import predicted_answer
from nemo_ext.grading.extract import EXTRACTORS
from nemo_ext.grading.grader import TIMEOUT_S, Grader
from nemo_ext.grading.graders import rule_of
from nemo_ext.grading.verdict import Verdict
from nemo_ext.rows.row import Row

GRADED_AT_ONCE = 512  # rows

SYMBOLIC, JUDGE = "symbolic", "judge"
_NAMED = {SYMBOLIC: "default", "metamath": "hendrycks@the_answer_is", "numina": "integer_mod_1000@boxed"}
_MAX_CACHED = 1_000_000


@dataclass(frozen=True)
class Way:
    """How one grader comes to its verdict."""

    name: str
    rule: str
    extractor: str


def way_of(name: str, extractor: str) -> Way:
    """`extractor`: where the name gives none.

    Raises:
        ValueError: no grader or extractor of this name.
    """
    rule, _, own = _NAMED.get(name, name).partition("@")
    try:
        rule_of(rule)
    except ValueError as error:
        raise ValueError(f"{error}; or {', '.join(_NAMED)}, or <grader>@<extractor>") from error
    if (own or extractor) not in EXTRACTORS:
        raise ValueError(f"extractor: got {own or extractor!r}, choose one of {', '.join(EXTRACTORS)}")
    return Way(name, rule, own or extractor)


class GraderSet:
    """Grades rows by several graders side by side; the first one decides `is_correct`.

    Args:
        names: as in this module's docstring.
        extractor: one of extract.EXTRACTORS.

    Raises:
        ValueError: no name, one twice, or an unknown one.
    """

    def __init__(self, names: Sequence[str], extractor: str, timeout_s: float = TIMEOUT_S) -> None:
        if not names or len(set(names)) != len(names) or JUDGE in names:
            raise ValueError(f"graders: got {list(names)}; name at least one, each once, and not {JUDGE!r}")
        self._ways = [way_of(name, extractor) for name in names]
        self._extractor = extractor
        self._graders = {way.name: Grader(timeout_s=timeout_s, name=way.rule) for way in self._ways}
        self._known: dict[str, dict[tuple[str | None, str], Verdict]] = {way.name: {} for way in self._ways}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for grader in self._graders.values():
            grader.close()

    def columns(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """What grading adds to each row, which has `expected_answer` as text and `generation` or `predicted_answer`:
        predicted_answer, is_correct, verdict, grade_method, verdicts."""
        by_extractor = {name: self._answers(rows, name) for name in {self._extractor, *self._extractors}}
        found = {way.name: self._verdicts(rows, way, by_extractor[way.extractor]) for way in self._ways}
        first = found[self._ways[0].name]
        return [
            {
                "predicted_answer": answer,
                "is_correct": bool(first[i]),
                "verdict": str(first[i].equality),
                "grade_method": first[i].method,
                "verdicts": {name: verdicts[i].equal for name, verdicts in found.items()},
            }
            for i, answer in enumerate(by_extractor[self._ways[0].extractor])
        ]

    @property
    def _extractors(self) -> set[str]:
        return {way.extractor for way in self._ways}

    def _answers(self, rows: Sequence[Row], extractor: str) -> list[str | None]:
        found = [predicted_answer(row, extractor) for row in rows]
        return [each.text if each is not None else None for each in found]

    def _verdicts(self, rows: Sequence[Row], way: Way, answers: list[str | None]) -> list[Verdict]:
        known = self._known[way.name]
        if len(known) > _MAX_CACHED:
            known.clear()
        pairs = [(answer, str(row["expected_answer"])) for answer, row in zip(answers, rows, strict=True)]
        new = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        known.update(zip(new, self._graders[way.name].grade(new), strict=True))
        return [known[pair] for pair in pairs]


def check_graders(place: str, names: Sequence[str], extractor: str) -> None:
    """Raises ValueError, with the place in it, for names that `GraderSet` refuses."""
    try:
        GraderSet(names, extractor).close()
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def graded(rows: Iterator[Row], names: Sequence[str], extractor: str) -> Iterator[Row]:
    """Each row with what grading adds to it; see `GraderSet`."""
    with GraderSet(names, extractor) as graders:
        while batch := list(islice(rows, GRADED_AT_ONCE)):
            for row, columns in zip(batch, graders.columns(batch), strict=True):
                yield row | columns
