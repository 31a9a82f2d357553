"""The table's counts against a tally of the rows one by one, and its percentages against the published ones."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.curation.coverage.account import Gathered, asked_samples, follow
from nemo_ext.curation.coverage.seen import BLOCKS, Key, Look, Seen, code_blocks, reader
from nemo_ext.curation.coverage.table import Run, percent, strategies_of, table
from nemo_ext.rows.row import Row

TEXTS = (
    "In words: \\boxed{1}.",
    "```python\nprint(1)\n```\n\\boxed{1}",
    "```python\nprint(1)\n```\n```output\n1\n```\n```python\nprint(1)\n```\n```output\n1\n```",
    "<llm-code>\nprint(1)\n \\boxed{1}",
    "```json\n{}\n```",
)


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (6978, 7500, 93.04),
        (7469, 7473, 99.946),
        (0, 3, 0.0),
        (0, 0, None),
        (1, 3, 33.333),
        (2, 3, 66.667),
        (3, 3, 100.0),
    ],
)
def test_percentages_come_from_counts(part: int, whole: int, expected: float | None) -> None:
    assert percent(part, whole) == expected


def test_the_published_coverage() -> None:
    """arXiv 2402.10176: of MATH's 7,500 problems 6,978 have a correct solution, of GSM8K's 7,473 there are 7,469."""
    sources = dict.fromkeys(range(7500), "math") | dict.fromkeys(range(7500, 14973), "gsm8k")
    solved = {*range(6978), *range(7500, 14969)}
    seen = {Key(problem, "default", ""): Seen(samples=1, correct=int(problem in solved)) for problem in sources}
    stage = Gathered("solve", seen, {})
    asked = asked_samples(stage)
    rows = table(Run(sources, asked, follow(asked, [stage]), [seen], ["default"]))
    assert [(row["source"], row["solved"], row["problems"], row["coverage"]) for row in rows[1::2]] == [
        ("gsm8k", 7469, 7473, 99.946),
        ("math", 6978, 7500, 93.04),
    ]
    assert (rows[-1]["solved"], rows[-1]["problems"], rows[-1]["coverage"]) == (14447, 14973, percent(14447, 14973))


@pytest.mark.parametrize(("text", "expected"), list(zip(TEXTS, ("0", "1", "2+", "malformed", "0"), strict=True)))
def test_blocks_of_code(text: str, expected: str) -> None:
    assert code_blocks({"generation": "x", "generated_solution": text}) == expected


ROW = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abcd"),
        "strategy": st.sampled_from(["default", "masked", "subject"]),
        "generation": st.sampled_from(TEXTS),
        "is_correct": st.booleans(),
        "ended": st.sampled_from(["answer", "error", "length"]),
        "errors": st.dictionaries(st.sampled_from(["error", "timeout"]), st.integers(1, 3)),
        "fate": st.sampled_from(["kept", "solve:refused", "grade:no_answer", "last:not_sampled", "last:duplicate"]),
        "compact": st.booleans(),
    }
)
SOURCES = {"a": "math", "b": "math", "c": "gsm8k", "d": "gsm8k", "e": "gsm8k"}
STAGES = ("solve", "grade", "last")


def _sample(number: int, drawn: Row) -> Row:
    trace = {"executions": sum(drawn["errors"].values()), "errors": drawn["errors"], "ended": drawn["ended"]}
    kept = {key: drawn[key] for key in ("id", "strategy", "generation", "is_correct", "fate", "compact")}
    return kept | {"problem": f"P{drawn['id']}", "sample_index": number, "trace": trace}


def _gathered(rows: list[Row]) -> list[Gathered]:
    """The rows as stages write them: each goes as far as its fate says."""
    found, came = [], rows
    for stage in STAGES:
        first, last = stage == "solve", stage == "last"
        dropped = [
            row | {"reason": row["fate"].split(":")[1], "error": "x"} for row in came if row["fate"].startswith(stage)
        ]
        if last:  # a stage may write no more than the id of what it drops
            short = ("id", "sample_index", "reason")
            dropped = [{key: row[key] for key in short} if row["compact"] else row for row in dropped]
        came = [row for row in came if not row["fate"].startswith(stage)]
        look = Look(problems=first, traces=first, correct=stage == "grade", kept=last)
        found.append(Gathered(stage, reader(look)(came), reader(Look(dropped=True, asked=first))(dropped)))
    return found


def _brute_force(rows: list[Row], problems: set[str]) -> dict[str, Any]:
    replied = [row for row in rows if not row["fate"].startswith("solve")]
    graded = [row for row in replied if not row["fate"].startswith("grade")]
    right = [row for row in graded if row["is_correct"]]
    kept = [row for row in graded if row["fate"] == "kept"]
    dropped: dict[str, dict[str, int]] = {stage: {} for stage in STAGES}
    for row in rows:
        if row["fate"] != "kept":
            stage, reason = row["fate"].split(":")
            dropped[stage][reason] = dropped[stage].get(reason, 0) + 1
    errors = sum((Counter(row["trace"]["errors"]) for row in replied), Counter[str]())
    blocks = {
        of: {name: sum(code_blocks(row) == name for row in those) for name in BLOCKS}
        for of, those in (("correct", right), ("kept", kept))
    }
    solved = {row["id"] for row in right}
    return {
        "problems": len(problems), "samples": len(rows), "correct": len(right), "correct_percent": percent(len(right), len(rows)),
        "unique_correct": len({(row["id"], row["generation"]) for row in right}), "solved": len(solved),
        "coverage": percent(len(solved), len(problems)) if rows else None, "kept_percent": percent(len(kept), len(rows)),
        "kept": {"solve": len(replied), "grade": len(graded), "last": len(kept)}, "dropped": dropped,
        "code_blocks": blocks, "errors": dict(errors), "ended": dict(Counter(row["trace"]["ended"] for row in replied)),
        "executions": sum(row["trace"]["executions"] for row in replied), "not_asked": {},
    }  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, max_size=25))
def test_every_figure_is_that_of_a_tally_row_by_row(drawn: list[Row]) -> None:
    rows = [_sample(number, row) for number, row in enumerate(drawn)]
    stages = _gathered(rows)
    asked = asked_samples(stages[0])
    seen = [each for stage in stages for each in (stage.kept, stage.dropped)]
    names = strategies_of(asked, [key for each in seen for key in each])
    assert set(names) == {row["strategy"] for row in rows}
    found = table(Run(SOURCES, asked, follow(asked, stages), seen, names))
    for row in found:
        problems = {name for name, source in SOURCES.items() if row["source"] in (source, None)}
        mine = [each for each in rows if each["id"] in problems and row["strategy"] in (each["strategy"], None)]
        expected = _brute_force(mine, problems)
        assert {key: row[key] for key in expected} == expected
        so_far = names[: names.index(row["strategy"]) + 1] if row["strategy"] else names
        reached = _brute_force([x for x in rows if x["id"] in problems and x["strategy"] in so_far], problems)
        assert row["solved_so_far"] == reached["solved"]
