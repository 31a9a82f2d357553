"""+recipe=filter and +recipe=deduplicate: a person's own file, one command each."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from launchers.planning import plan
from tests.composing import compose_recipe
from tests.recipes.conftest import lines

Finish = Callable[..., str]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    rows = [
        {"question": f"What is {i} + {i}?", "solution": f"{i} + {i} = {2 * i}. \\boxed{{{2 * i}}}", "mine": i}
        for i in range(30)
    ]
    rows[3]["solution"] = r"3 + 3 = 7. \boxed{6}"
    rows[4]["solution"] = "It is 8."
    rows[5]["solution"] += "\nProblem:\nAnother one"
    rows[6] = rows[7] | {"mine": 6}
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n")
    return path


def test_look_filter_deduplicate(finish: Finish, mine: Path, tmp_path: Path) -> None:
    look = finish("+recipe=filter", "+scale=tiny", f"input={mine}", "stages.filter.preview=20", "run_name=look")
    assert (
        "incorrect_arithmetic            1     5.0%" in look
        and "3 + 3 = 7" in look
        and "cut: Problem: Another one" in look
    )
    assert "\x1b" not in look and not list((tmp_path / "look").rglob("output*.jsonl"))
    said = finish("+recipe=filter", "+scale=tiny", f"input={mine}", "run_name=done")
    assert "28 rows, dropped 1 incorrect_arithmetic, 1 malformed_json, 1 no_box" in said
    output = lines(tmp_path / "done" / "filter" / "output.jsonl")
    assert [row["mine"] for row in output] == [i for i in range(30) if i not in (3, 4)]
    assert output[3]["generated_solution"] == r"5 + 5 = 10. \boxed{10}" and output[3]["problem"] == "What is 5 + 5?"
    said = finish("+recipe=deduplicate", f"input={tmp_path / 'done' / 'filter'}", "stages.deduplicate.near=true")
    assert "27 rows, dropped 1 duplicate" in said
    dropped = lines(tmp_path / "deduplicate" / "deduplicate" / "dropped.jsonl")
    assert [row["mine"] for row in dropped] == [7] and dropped[0]["duplicate_of"] == output[4]["id"]
    counts = Counter(row["mine"] for row in lines(tmp_path / "deduplicate" / "deduplicate" / "output.jsonl"))
    assert set(counts.values()) == {1} and len(counts) == 27


def test_select_code(finish: Finish, tmp_path: Path) -> None:
    """Samples of a problem lie apart, as in files written seed by seed."""
    code = "<llm-code>\nprint(4)\n</llm-code>\n<llm-code-output>\n4\n</llm-code-output>\n\\boxed{4}"
    rows = [{"problem": f"p{p}", "solution": code if p + s < 4 else "\\boxed{4}"} for s in range(3) for p in range(4)]
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = finish("+recipe=select_code", f"input={path}", "stages.select_code.mode=any_code")
    assert "9 rows, dropped 3 has_no_code" in said
    output = lines(tmp_path / "select_code" / "select_code" / "output.jsonl")
    assert Counter(row["problem"] for row in output) == {"p0": 3, "p1": 3, "p2": 2, "p3": 1}


def test_what_is_wrong_is_said_in_a_sentence(finish: Finish, mine: Path) -> None:
    with pytest.raises(ValueError, match="unknown parameter many; it takes none"):
        plan.resolve(
            compose_recipe("filter", "stages.filter.steps=[{name: no_box, params: {many: 3}}]"), Path("runs/x")
        )
    said = finish("+recipe=filter", "+scale=tiny", f"input={mine}", "stages.filter.steps=[{name: incorrect}]", code=1)
    assert "step incorrect needs the column is_correct" in " ".join(said.split()) and "Traceback" not in said
