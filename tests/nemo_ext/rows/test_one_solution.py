"""A row's solution is the same text to every stage that reads one."""

from collections import Counter
from collections.abc import Callable

import pytest

from nemo_ext.curation.choosing.row_keys import published_solution
from nemo_ext.curation.duplicates.exact import row_key
from nemo_ext.curation.filter_chain import with_solution
from nemo_ext.grading.answers import predicted_answer
from nemo_ext.prompts.prompt import Prompt
from nemo_ext.rows.outside.adopt import adopt
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.row import Row, written_solution
from nemo_ext.samples.sft_rows import training_of
from recipes.stages.curation import select_code
from recipes.stages.grading import score_rewards

PROMPT = Prompt(name="p", template="chat", system="", user="{problem}")
CODE = "```python\nprint(1)\n```\n```output\n1\n```\n"
FIRST, SECOND = CODE + r"So \boxed{1}.", r"So \boxed{2}."
ROWS: list[tuple[Row, str | None]] = [
    ({"generated_solution": None, "generation": FIRST}, FIRST),
    ({"generation": FIRST}, FIRST),
    ({"generated_solution": FIRST}, FIRST),
    ({"generated_solution": FIRST, "generation": SECOND}, FIRST),
    ({"generated_solution": SECOND, "generation": FIRST}, SECOND),
    ({"generated_solution": "", "generation": FIRST}, ""),
    ({"generated_solution": 7, "generation": FIRST}, None),
    ({"generated_solution": None, "generation": None}, None),
    ({"generated_solution": None, "generation": FIRST, "messages": [{"role": "user", "content": "P"}, {"role": "assistant", "content": SECOND}]}, FIRST),
    ({"generation": FIRST, "solution": SECOND, "response": "other"}, FIRST),
]  # fmt: skip


def trained(row: Row) -> str | None:
    try:
        return str(training_of(row, PROMPT).answer["content"])
    except BadRow:
        return None


def filtered(row: Row) -> str | None:
    row, reason = with_solution(row)
    return None if reason else row["generated_solution"]


def answered(row: Row) -> str | None:
    found = predicted_answer(row, "boxed")
    return None if found is None else found.text


def has_code(row: Row) -> bool:
    counts: Counter[str] = Counter()
    list(select_code.make_selection("any_code", None)([row], counts))
    return bool(counts["problems_with_code"])


def rewarded(row: Row) -> str | None:
    question = next(score_rewards.Rewards(score_rewards.Config(protocol="chat")).questions(row), None)
    assert question is None or not isinstance(question.prompt, str)
    return None if question is None else question.prompt[1]["content"]


@pytest.mark.parametrize("outside", [False, True], ids=["own", "outside"])
@pytest.mark.parametrize(("more", "solution"), ROWS)
def test_every_stage_reads_the_same_solution(more: Row, solution: str | None, outside: bool) -> None:
    row = {"id": "1", "problem": "P", **more}
    row = adopt(row).row if outside else row
    assert written_solution(row) == solution
    expected: dict[Callable[[Row], object], object] = {
        filtered: solution,
        published_solution: solution or None,
        trained: solution or None,
        answered: {FIRST: "1", SECOND: "2"}.get(solution or ""),
        has_code: solution == FIRST,
        rewarded: solution or None,
    }
    assert {read.__name__: read(row) for read in expected} == {read.__name__: what for read, what in expected.items()}
    if isinstance(row.get("generated_solution"), str | None):
        assert row_key(row) == row_key({"problem": "P", "generated_solution": solution})
