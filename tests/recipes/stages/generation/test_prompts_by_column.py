"""generate with prompts chosen by a column of the rows."""

from typing import Any

import pytest

from tests.recipes.conftest import external
from tests.recipes.stages.generation.test_generate import QUICK, always


def _prompt(name: str) -> dict[str, Any]:
    return {"prompt": {"name": name, "template": "base", "user": name + ": {problem}"}, "num_samples": 1}


ROWS = [
    {"id": "0", "problem": "a", "subject": "algebra", "problem_source": "math"},
    {"id": "1", "problem": "b", "subject": "geometry", "problem_source": "math"},
    {"id": "2", "problem": "c", "problem_source": "algebra"},
]


def _keys(model: dict[str, Any], server: Any, source: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "server": external(server), "client": QUICK, "input": source, **more}


def test_a_column_decides(run, rows, model, fake) -> None:
    by_subject = {"algebra": _prompt("A"), "*": _prompt("O")}
    ran = run("generate", **_keys(model, fake(always), rows(ROWS), by="subject", by_source=by_subject))
    assert [row["generation"].split(" /")[0] for row in ran.output] == ["A: a", "O: b", "O: c"]
    assert set(ran.manifest["prompts"]) == {"A", "O"}


def test_the_source_by_default(run, rows, model, fake) -> None:
    by_source = {"algebra": _prompt("A"), "*": _prompt("O")}
    ran = run("generate", **_keys(model, fake(always), rows(ROWS), by_source=by_source))
    assert [row["generation"].split(" /")[0] for row in ran.output] == ["O: a", "O: b", "A: c"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"by": "subject"}, r"by_source has no 'geometry', the subject of a row; it has \['algebra'\]"),
        (
            {"by": "subjct", "by_source": {"*": _prompt("O")}},
            "by=subjct: no row has that column; rows have id, .*, subject",
        ),
        ({"by": ""}, "by is empty: name the column"),
    ],
)
def test_a_column_or_value_that_is_not_there(run, rows, model, fake, keys: dict[str, Any], said: str) -> None:
    server = fake(always)
    keys = {"by_source": {"algebra": _prompt("A")}} | keys
    with pytest.raises(ValueError, match=said):
        run("generate", **_keys(model, server, rows(ROWS), **keys))
    assert not server.bodies
