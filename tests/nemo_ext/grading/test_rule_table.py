"""The rules of equality as recipes/guides/curation.md has them: the table is the test."""

import re
from pathlib import Path

import pytest

from nemo_ext.grading import grade_pairs

ROOT = Path(__file__).parents[3]
HEADING = "## When two answers are equal"
CELL_END = re.compile(r"(?<!\\)\|")
KINDS = (
    "units", "unit", "percent", "degrees", "intervals", "sets", "tuples", "matrices", "equations", "thousands separators",
    "mixed numbers", "number words", "currency", "times", "leading zeros", "scientific notation", "plus or minus",
    "option letters", "inequalities", "a factor of a hundred", "nearly the same whole number", "ratios", "number bases",
)  # fmt: skip


def rules() -> list[tuple[str, str, str, str]]:
    """(rule, prediction, reference, verdict) of every row."""
    section = (
        (ROOT / "recipes" / "guides" / "curation.md").read_text().split(f"{HEADING}\n", 1)[1].split("\n## ", 1)[0]
    )
    found = []
    for line in section.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in CELL_END.split(line)[1:-1]]
        if len(cells) == 4 and cells[1].startswith("`"):
            found.append((cells[0], cells[1][1:-1], cells[2][1:-1], cells[3]))
    return found


def test_the_table_has_every_kind_of_rule() -> None:
    names = [rule for rule, *_ in rules()]
    assert len(names) > 90
    assert not [
        kind for kind in KINDS if not any(name.startswith((kind, f"a {kind}", f"one {kind}")) for name in names)
    ]


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], str]:
    pairs = [(prediction, reference) for _, prediction, reference, _ in rules()]
    both_ways = [*pairs, *((reference, prediction) for prediction, reference in pairs)]
    return {pair: str(verdict.equality) for pair, verdict in zip(both_ways, grade_pairs(both_ways), strict=True)}


@pytest.mark.parametrize(("rule", "prediction", "reference", "verdict"), rules())
def test_rule(verdicts: dict[tuple[str, str], str], rule: str, prediction: str, reference: str, verdict: str) -> None:
    assert verdicts[prediction, reference] == verdict
    if prediction.strip():  # a missing answer is no reference
        assert verdicts[reference, prediction] == verdict
