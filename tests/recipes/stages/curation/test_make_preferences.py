"""Pairs of samples: every sample is accounted for, and a pair is what it says."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.curation.choosing.preference_pairs import MODES, pairs


def sample(problem: str, index: int, solution: str, **keys: Any) -> dict[str, Any]:
    return {"id": problem, "problem": problem, "sample_index": index, "generation": solution, "level": 3, **keys}


DATA = [
    sample("a", 0, "wrong", is_correct=False),
    sample("a", 1, "right", is_correct=True),
    sample("a", 2, "right", is_correct=True),
    sample("a", 3, "right too", is_correct=True),
    sample("b", 0, "right", is_correct=True),
    sample("c", 0, "wrong", is_correct=False),
    sample("c", 1, "?", is_correct=None),
    sample("d", 0, "", is_correct=True),
]


def test_the_first_right_sample_against_the_first_wrong_one(run, rows) -> None:
    ran = run("make_preferences", input=rows(DATA))
    (pair,) = ran.output
    assert pair == pair | {"problem_id": "a", "problem": "a", "chosen": "right", "rejected": "wrong", "level": 3}
    assert pair == pair | {"chosen_reward": 1, "rejected_reward": 0, "chosen_sample": 1, "rejected_sample": 0}
    assert not {"generation", "is_correct", "sample_index"} & pair.keys() and pair["id"] != "a"
    counted = {
        "rejected": 1,
        "same_solution": 1,
        "not_paired": 1,
        "no_contrast": 2,
        "no_is_correct": 1,
        "no_solution": 1,
    }
    assert Counter(ran.reasons) == counted
    assert ran.manifest["figures"] | {"problems": 4, "problems_with_pairs": 1} == ran.manifest["figures"]


def test_a_sample_of_several_pairs_makes_several_rows(run, rows) -> None:
    data = [sample("a", i, f"s{i}", is_correct=i > 1) for i in range(4)]
    ran = run("make_preferences", input=rows(data[::2] + data[1::2]), pairs="all")
    assert sorted((row["chosen"], row["rejected"]) for row in ran.output) == [
        (c, r) for c in ("s2", "s3") for r in ("s0", "s1")
    ]
    assert ran.reasons == ["rejected"] * 2 and ran.manifest["rows_made"] == 2
    assert len({row["id"] for row in ran.output}) == 4
    two = run("make_preferences", input=rows(data), pairs="all", pairs_per_problem=2, folder="two")
    assert {row["chosen"] for row in two.output} == {"s2", "s3"} and {row["rejected"] for row in two.output} == {
        "s0",
        "s1",
    }
    again = run("make_preferences", input=rows(data), pairs="all", pairs_per_problem=2, folder="again")
    assert again.output == two.output


def test_by_reward(run, rows) -> None:
    rewards = [0.25, 2.0, float("inf"), None, True, 1.9]
    data = [sample("a", i, f"s{i}", reward=reward) for i, reward in enumerate(rewards)]
    ran = run("make_preferences", input=rows(data[:2] + data[3:]), by="reward", pairs="best_worst")
    (pair,) = ran.output
    assert (pair["chosen"], pair["rejected"], pair["chosen_reward"], pair["rejected_reward"]) == (
        "s1",
        "s0",
        2.0,
        0.25,
    )
    assert Counter(ran.reasons) == {"rejected": 1, "no_reward": 1, "bad_reward": 1, "not_paired": 1}
    far = run(
        "make_preferences", input=rows(data[:2] + data[5:]), by="reward", pairs="all", min_margin=1.0, folder="far"
    )
    assert [(row["chosen"], row["rejected"]) for row in far.output] == [("s1", "s0"), ("s5", "s0")]


def test_samples_of_every_layout_and_with_columns_of_their_own(run, rows) -> None:
    said = {True: "It is 2.", False: "It is 3."}

    def talk(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": answer}]

    layouts = {
        "messages": lambda answer: {"messages": talk(answer)},
        "prompt + response": lambda answer: {"prompt": "1 + 1?", "response": answer},
        "query + generated_solution": lambda answer: {"query": "1 + 1?", "generated_solution": answer},
    }
    for name, make in layouts.items():
        data = [make(answer) | {"is_correct": right} for right, answer in said.items()]
        ran = run("make_preferences", input=rows(data), folder=name.split()[0])
        assert [(row["problem"], row["chosen"], row["rejected"]) for row in ran.output] == [
            ("1 + 1?", said[True], said[False])
        ]
    data = [{"ask": "1 + 1?", "reply": answer, "right": right} for right, answer in said.items()]
    columns = {"problem": "ask", "generation": "reply", "is_correct": "right"}
    ran = run("make_preferences", input=rows(data), columns=columns, folder="own")
    assert [(row["chosen"], row["rejected"]) for row in ran.output] == [(said[True], said[False])]


scores = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=8)


@given(scores, st.sampled_from(MODES), st.sampled_from([0.0, 0.5, 1.5]), st.none() | st.integers(1, 5))
def test_pairs_are_as_they_say(values: list[float], mode: str, margin: float, limit: int | None) -> None:
    found = pairs(values, mode, margin, limit, "seed")
    every = {
        (i, j)
        for i, first in enumerate(values)
        for j, second in enumerate(values)
        if first > second and first - second >= margin
    }
    assert len(set(found)) == len(found) and set(found) <= every
    assert bool(found) == bool(every), "where there is a pair, one is found"
    if mode == "all":
        assert len(found) == min(len(every), limit or len(every))
    if mode == "best_worst" and found:
        assert values[found[0][0]] - values[found[0][1]] == max(values[i] - values[j] for i, j in every)
    assert pairs(values, mode, margin, limit, "seed") == found


def test_pairs_are_spread_over_the_samples() -> None:
    found = pairs([1.0] * 4 + [0.0] * 4, "all", limit=4)
    assert {i for i, _ in found} == {0, 1, 2, 3} and {j for _, j in found} == {4, 5, 6, 7}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"by": "vote"}, "by='vote'"),
        ({"pairs": "some"}, "pairs='some'"),
        ({"pairs_per_problem": 0}, "at least 1"),
        ({"min_margin": -1}, "not be negative"),
    ],
)
def test_settings_that_make_no_sense(keys: dict[str, Any], message: str) -> None:
    from omegaconf import OmegaConf

    from recipes.stages.curation.make_preferences import Config, check

    with pytest.raises(ValueError, match=message):
        check(OmegaConf.merge(OmegaConf.structured(Config), {"name": "p", "input": "x"} | keys))
