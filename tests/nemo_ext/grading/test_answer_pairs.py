"""Pairs of answers by kind, with the truth: ours (answer_pairs.jsonl) and those made after public reports, where they are at hand."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.grading import Verdict, grade_pairs
from nemo_ext.grading.equality.rules import fast_verdict
from tests.conftest import SHARED_DATA

HERE = Path(__file__).parent
OWN = [json.loads(line) for line in (HERE / "answer_pairs.jsonl").read_text().splitlines()]
PROBES = SHARED_DATA / "grading_probes.jsonl"
MAX_FALSE_EQUAL, MAX_FALSE_DIFFERENT = 2, 12
answers = st.sampled_from(sorted({row[side] for row in OWN for side in ("prediction", "reference")}))


def both_ways(rows: list[dict[str, Any]]) -> list[tuple[Verdict, Verdict]]:
    pairs = [(row["prediction"], row["reference"]) for row in rows]
    verdicts = grade_pairs([*pairs, *((reference, prediction) for prediction, reference in pairs)])
    return list(zip(verdicts[: len(rows)], verdicts[len(rows) :], strict=True))


def test_own_pairs_are_many_and_of_many_kinds() -> None:
    kinds = Counter(row["kind"] for row in OWN)
    assert len(OWN) > 180 and len(kinds) >= 20
    assert min(kinds.values()) >= 3


@pytest.fixture(scope="module")
def own_verdicts() -> list[tuple[Verdict, Verdict]]:
    return both_ways(OWN)


@pytest.mark.parametrize("kind", sorted({row["kind"] for row in OWN}))
def test_own_pairs(own_verdicts: list[tuple[Verdict, Verdict]], kind: str) -> None:
    """A pair of different answers may be undecided, which counts as not equal; equal ones are found equal."""
    wrong = [
        (row["prediction"], row["reference"], verdicts)
        for row, verdicts in zip(OWN, own_verdicts, strict=True)
        if row["kind"] == kind and any(bool(verdict) != row["equal"] for verdict in verdicts)
    ]
    assert wrong == []


def test_pairs_after_public_reports(record_property: Callable[[str, object], None]) -> None:
    if not PROBES.exists():
        pytest.skip(f"{PROBES} is missing")
    rows = [json.loads(line) for line in PROBES.read_text().splitlines()]
    wrong = [
        row for row, found in zip(rows, both_ways(rows), strict=True) if any(bool(v) != row["equal"] for v in found)
    ]
    false_equal = [row for row in wrong if not row["equal"]]
    record_property("wrong", len(wrong))
    assert len(false_equal) <= MAX_FALSE_EQUAL, false_equal
    assert len(wrong) - len(false_equal) <= MAX_FALSE_DIFFERENT, wrong


def test_a_verdict_does_not_depend_on_which_answer_is_the_known_one() -> None:
    assert [(row, found) for row, found in zip(OWN, both_ways(OWN), strict=True) if found[0] != found[1]] == []


@settings(max_examples=400)
@given(answers, answers)
def test_rules_are_symmetric_over_all_kinds(left: str, right: str) -> None:
    forward, backward = fast_verdict(left, right), fast_verdict(right, left)
    assert (forward and forward.equality) == (backward and backward.equality)
