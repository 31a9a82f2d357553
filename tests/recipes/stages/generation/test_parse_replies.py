"""The parse_replies stage: what becomes of a reply, and that the rows add up."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.recipes.conftest import Ran, external
from tests.recipes.stages.generation.test_generate import always

Run = Callable[..., Ran]
Write = Callable[[list[dict[str, Any]]], str]


def _row(number: int, generation: object, **keys: Any) -> dict[str, Any]:
    return {"id": str(number), "problem": f"P{number}", "generation": generation, **keys}


LISTS = [
    _row(0, "1. Groups\n2. Rings\n3. Fields"),
    _row(1, "I have none."),
    _row(2, "1. Only one"),
    _row(3, "1. Whole\n2. Hal", finish_reason="length"),
    _row(4, None),
]


def test_a_row_for_each_item(run: Run, rows: Write) -> None:
    ran = run("parse_replies", input=rows(LISTS), parser="numbered_list", to="topic")
    assert [row["topic"] for row in ran.output] == ["Groups", "Rings", "Fields", "Only one"]
    assert [row["made_of"] for row in ran.output] == ["0", "0", "0", "2"]
    assert len({row["id"] for row in ran.output}) == 4 and ran.output[0]["problem"] == "P0"
    assert ran.manifest["dropped"] == {"no_numbered_list": 1, "no_reply": 1, "truncated": 1}
    told = ran.manifest
    assert (told["rows_in"], told["rows_made"], told["rows_out"]) == (5, 2, 4)
    assert told["rows_in"] + told["rows_made"] == told["rows_out"] + sum(told["dropped"].values())


def test_items_of_other_samples_have_other_ids(run: Run, rows: Write) -> None:
    samples = [_row(0, "1. a\n2. b", sample_index=index) for index in range(3)]
    ran = run("parse_replies", input=rows(samples), parser="numbered_list", to="topic")
    assert len({row["id"] for row in ran.output}) == 6
    again = run("parse_replies", input=rows(samples[1:]), parser="numbered_list", to="topic", folder="again")
    assert {row["id"] for row in again.output} < {row["id"] for row in ran.output}


def test_a_value_of_its_row(run: Run, rows: Write) -> None:
    given = [_row(0, "Score: 3/4"), _row(1, "7/10"), _row(2, "Score: 1", finish_reason="length")]
    keys = {"parser": "score", "params": {"high": 4}, "to": "score"}
    ran = run("parse_replies", input=rows(given), **keys)
    assert ran.output == [given[0] | {"score": 3.0}]
    assert Counter(ran.reasons) == {"no_score": 1, "truncated": 1} and "rows_made" not in ran.manifest
    kept = run("parse_replies", input=rows(given), keep_truncated=True, folder="kept", **keys)
    assert [row["score"] for row in kept.output] == [3.0, 1.0]


def test_a_verdict_that_is_no_is_a_value(run: Run, rows: Write) -> None:
    ran = run("parse_replies", input=rows([_row(0, "No.")]), parser="verdict", to="same")
    assert ran.output[0]["same"] is False


def test_another_column(run: Run, rows: Write) -> None:
    given = [_row(0, "?", critique="- a\n- b")]
    ran = run("parse_replies", input=rows(given), parser="yaml_list", column="critique", to="point")
    assert [row["point"] for row in ran.output] == ["a", "b"]


def test_the_number_of_workers_changes_no_byte(run: Run, rows: Write) -> None:
    many = [_row(number, "1. a\n2. b" if number % 3 else "none") for number in range(300)]
    one, two = (
        run(
            "parse_replies",
            input=rows(many),
            parser="numbered_list",
            to="topic",
            workers=workers,
            folder=f"w{workers}",
        )
        for workers in (1, 2)
    )
    assert one.output == two.output and one.manifest["rows_made"] == two.manifest["rows_made"] == 200


def test_a_reply_is_part_of_the_next_question(run: Run, rows: Write, model: Any, fake: Any) -> None:
    def ask(user: str, source: str, folder: str) -> Ran:
        prompt = {"name": folder, "template": "base", "user": user, "stop": []}
        by_source = {"*": {"prompt": prompt, "num_samples": 1}}
        return run("generate", folder, input=source, by_source=by_source, model=model, server=external(server))

    server = fake(always)
    first = ask("Draft: {problem}", rows([_row(0, None), _row(1, None)]), "draft")
    drafts = run("parse_replies", "drafts", input=str(first.folder), parser="text", to="draft")
    better = ask("Better: {draft}", str(drafts.folder), "better")
    assert [row["draft"].split(" /")[0] for row in better.output] == ["Draft: P0", "Draft: P1"]
    assert [row["generation"] for row in better.output] == [
        f"Better: {row['draft']} / {row['seed']}" for row in better.output
    ]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"parser": "nothing"}, "stages.out: reply parser 'nothing': unknown"),
        ({"parser": "score"}, "stages.out: reply parser score needs high"),
        ({"to": "id"}, "stages.out.to='id': name a column that is neither id nor generation"),
        ({"to": "generation"}, "stages.out.to='generation'"),
    ],
)
def test_what_it_refuses(run: Run, rows: Write, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run("parse_replies", input=rows(LISTS), **({"parser": "numbered_list", "to": "topic"} | keys))
