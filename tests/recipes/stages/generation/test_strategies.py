"""generate with several strategies at once: each row in every one of them."""

from collections import Counter
from typing import Any

import pytest

from tests.recipes.conftest import external
from tests.recipes.stages.generation.test_generate import QUICK, always

ROWS = [
    {"id": "a", "problem": "Add.", "problem_source": "math", "subject": "Algebra", "masked_solution": "M"},
    {"id": "b", "problem": "Draw.", "problem_source": "math", "subject": "Geometry"},
    {"id": "c", "problem": "Count.", "problem_source": "gsm8k", "masked_solution": "N"},
]


def way(text: str, num_samples: int = 1) -> dict[str, Any]:
    prompt = {"name": text, "template": "base", "user": text, "few_shot": [], "stop": ["\n\n"]}
    return {"prompt": prompt, "num_samples": num_samples}


def strategies() -> dict[str, Any]:
    return {
        "default": {"by_source": {"math": way("math {problem}", 2), "gsm8k": way("words {problem}")}},
        "masked": {"by_source": {"*": way("{problem} hint {masked_solution}", 2)}},
        "subject": {
            "by": "subject",
            "by_source": {"Algebra": way("algebra {problem}", 3), "Geometry": None, "*": None},
        },
    }


@pytest.fixture
def asked(run, rows, model, fake):
    def start(data: Any = ROWS, folder: str = "out", **keys: Any):
        server = fake(always)
        sampling = {"temperature": 1.0, "max_tokens": 8}
        keys = {"strategies": strategies(), "sampling": sampling, **keys}
        ran = run("generate", folder, input=rows(data), model=model, server=external(server), client=QUICK, **keys)
        return ran, [body["prompt"] for body in server.bodies]

    return start


def test_every_row_is_asked_under_every_strategy(asked) -> None:
    ran, prompts = asked()
    assert Counter((row["id"], row["strategy"]) for row in ran.output) == {
        ("a", "default"): 2, ("a", "masked"): 2, ("a", "subject"): 3, ("b", "default"): 2, ("c", "default"): 1, ("c", "masked"): 2,
    }  # fmt: skip
    assert Counter(prompts)["Add. hint M"] == 2 and Counter(prompts)["algebra Add."] == 3
    assert [(row["id"], row["strategy"], row["reason"]) for row in ran.dropped] == [
        ("b", "masked", "missing_masked_solution")
    ]
    assert set(ran.manifest["prompts"]) == {
        "math {problem}",
        "words {problem}",
        "{problem} hint {masked_solution}",
        "algebra {problem}",
    }


def test_a_sample_has_an_index_and_a_seed_of_its_own(asked) -> None:
    same = {"one": {"by_source": {"*": way("{problem}", 2)}}, "two": {"by_source": {"*": way("{problem}", 2)}}}
    ran, prompts = asked(strategies=same)
    assert Counter((row["id"], row["sample_index"]) for row in ran.output) == {
        (name, n): 1 for name in "abc" for n in range(4)
    }
    assert len({row["seed"] for row in ran.output}) == len(prompts) == 12


def test_another_strategy_pays_for_its_own_samples_alone(asked, tmp_path) -> None:
    first, prompts = asked(strategies={"default": strategies()["default"]})
    assert len(prompts) == 5
    (tmp_path / "out").rename(tmp_path / "out.old1")  # as redo=true does
    second, prompts = asked()
    assert len(prompts) == 7 and not any(prompt.startswith(("math", "words")) for prompt in prompts)
    assert [row for row in second.output if row["strategy"] == "default"] == first.output


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"by_source": {"*": way("{problem}")}}, "has strategies and by_source"),
        ({"chain": {"draft": {"prompt": way("{problem}")["prompt"]}}}, "has strategies and chain"),
        ({"strategies": {"none": {"by_source": {"*": None}}}}, r"strategies\.none\.by_source is empty"),
        ({"strategies": {"odd": {"by": "", "by_source": {"*": way("{problem}")}}}}, r"strategies\.odd\.by is empty"),
        ({"strategies": {"x": {"by": "subject", "by_source": {"Algebra": way("{problem}")}}}}, "x.by_source has no 'Geometry'"),
        ({"strategies": {"x": {"by": "level", "by_source": {"*": way("{problem}")}}}}, "x.by=level: no row has that column"),
        ({"strategies": {"ok": {"by_source": {"*": way("{problem}")}}, "x": {"by_source": {"*": way("{hint}")}}}}, "no row has 'hint'"),
        ({"strategies": {"x": {"by_source": {"*": way("{problem}", 0)}}}}, "num_samples=0"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(asked, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        asked(**keys)


def test_a_subject_without_a_prompt_is_named_before_anything_is_asked(run, rows, model, fake) -> None:
    server = fake(always)
    ways = strategies() | {"subject": {"by": "subject", "by_source": {"Algebra": way("a {problem}"), "None": None}}}
    said = r"stages.out.strategies.subject.by_source has no 'Geometry', the subject of a row; it has \['Algebra', 'None'\]"
    with pytest.raises(ValueError, match=said):
        run("generate", input=rows(ROWS), model=model, server=external(server), client=QUICK, strategies=ways,
            sampling={"temperature": 1.0, "max_tokens": 8})  # fmt: skip
    assert not server.bodies
