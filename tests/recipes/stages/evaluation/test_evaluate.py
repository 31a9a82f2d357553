"""evaluate against a server that answers by prompt and seed: which requests, which rows, which scores."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nemo_ext.evaluation.contract import Contract, compare
from nemo_ext.records import manifest
from nemo_ext.records.manifest import Facts
from tests.nemo_ext.serving.fake_server import reply_to
from tests.recipes.conftest import Ran, external, lines

PROMPT = {"name": "p", "template": "base", "user": "Q: {problem}", "stop": ["\n\n"]}
PROBLEMS = [
    {"id": str(i), "benchmark": name, "problem": f"{name} {i}", "expected_answer": str(i), "level": i % 2 + 1}
    for name in ("amc", "aime")
    for i in range(3)
]


async def by_seed(request: web.Request, index: int) -> web.StreamResponse:
    """Right for problem 0, wrong for 2; 1 depends on the seed; problem 2 of amc gives no answer."""
    body = await request.json()
    name, number = re.fullmatch(r"Q: (\w+) (\d)", body["prompt"]).groups()
    right = number == "0" or (number == "1" and body["seed"] % 2 == 0)
    text = "no idea" if (name, number) == ("amc", "2") else rf"\boxed{{{number if right else 99}}}"
    return reply_to(body, text)


@pytest.fixture
def evaluated(
    run: Callable[..., Ran], rows: Callable[..., str], model: dict[str, Any], fake: Any
) -> Callable[..., Any]:
    def start(folder: str = "out", given: list[dict[str, Any]] = PROBLEMS, **keys: Any) -> tuple[Ran, Any]:
        server = fake(by_seed)
        asked = {"benchmarks": rows(given), "prompt": PROMPT, "model": model | {"name": "fake"}}
        return run("evaluate", folder, server=external(server), **asked | keys), server

    return start


SAMPLED = {"num_samples": 4, "sampling": {"temperature": 0.7, "max_tokens": 50}}


def test_greedy_once(evaluated: Callable[..., Any]) -> None:
    ran, server = evaluated()
    assert len(server.bodies) == 6
    row = ran.output[0]
    assert row | {"generation": r"\boxed{0}", "predicted_answer": "0", "is_correct": True} == row
    assert (row["sample"], row["seed"], row["verdicts"], row["finish_reason"]) == (0, 0, {"symbolic": True}, "stop")
    scores = json.loads((ran.folder / "scores.json").read_text())
    assert (scores["model"], scores["step"], scores["num_samples"]) == ("fake", None, 1)
    amc = scores["benchmarks"]["amc"]
    assert (amc["problems"], amc["total"], amc["correct"], amc["no_answer"]) == (3, 3, 2, 1)
    assert amc["by"]["level"]["1"]["problems"] == 2
    assert "seeds" not in amc


def test_a_greedy_request_has_one_key(evaluated: Callable[..., Any]) -> None:
    """Completions that were paid for stay paid for: seed 0 and sample 0, whatever `seed` says."""
    first, second = (
        {row["key"] for row in lines(ran.folder / "completions.jsonl")}
        for ran in (evaluated("first")[0], evaluated("second", seed=7)[0])
    )
    assert first == second and len(first) == len(PROBLEMS)


def test_several_samples_of_each_problem(evaluated: Callable[..., Any]) -> None:
    ran, server = evaluated(**SAMPLED)
    assert [(row["benchmark"], row["id"], row["sample"]) for row in ran.output] == [
        (row["benchmark"], row["id"], sample) for row in PROBLEMS for sample in range(4)
    ]
    seeds = [row["seed"] for row in ran.output]
    assert len(set(seeds)) == 24 and {body["seed"] for body in server.bodies} == set(seeds)
    scores = json.loads((ran.folder / "scores.json").read_text())
    aime = scores["benchmarks"]["aime"]
    assert list(aime["metrics"]) == ["pass@1", "pass@2", "pass@4", "majority@4"]
    drawn = [seed % 2 == 0 for seed in seeds[16:20]]
    assert aime["accuracy"] == pytest.approx((1 + sum(drawn) / 4) / 3)
    assert aime["metrics"]["pass@4"]["value"] == pytest.approx((1 + any(drawn)) / 3)
    assert aime["seeds"]["values"] == pytest.approx([(1 + each) / 3 for each in drawn])
    again, _ = evaluated("again", **SAMPLED)
    assert again.output == ran.output
    other, _ = evaluated("other", **SAMPLED, seed=1)
    assert not {row["seed"] for row in other.output} & set(seeds)


def test_samples_of_a_problem_in_one_request(evaluated: Callable[..., Any]) -> None:
    ran, server = evaluated(**SAMPLED, samples_per_request=4)
    assert [body["n"] for body in server.bodies] == [4] * 6
    assert [len({row["seed"] for row in ran.output[i : i + 4]}) for i in range(0, 24, 4)] == [1] * 6
    assert len({row["generation"] for row in ran.output[:4]}) == 4


def test_a_problem_in_two_benchmarks_is_asked_once(evaluated: Callable[..., Any]) -> None:
    twice = [PROBLEMS[1], PROBLEMS[1] | {"benchmark": "copy", "id": "c"}]
    ran, server = evaluated(given=twice, **SAMPLED)
    assert len(server.bodies) == 4
    assert [row["generation"] for row in ran.output[:4]] == [row["generation"] for row in ran.output[4:]]


def test_what_was_answered_is_not_asked_again(evaluated: Callable[..., Any], run: Callable[..., Ran]) -> None:
    """A run cut off after some answers, and then with twice the samples of each problem."""
    ran, _ = evaluated(**SAMPLED)
    stored = (ran.folder / "completions.jsonl").read_bytes().splitlines(keepends=True)
    (ran.folder / "completions.jsonl").write_bytes(b"".join(stored[:9]) + stored[9][:20])
    again, server = evaluated(**SAMPLED)
    assert len(server.bodies) == 15 and again.output == ran.output
    more, server = evaluated(**SAMPLED | {"num_samples": 8})
    assert len(server.bodies) == 24
    assert [row for row in more.output if row["sample"] < 4] == ran.output


def test_the_contract_tells_greedy_from_sampled(evaluated: Callable[..., Any]) -> None:
    found = {}
    for name, keys in {"greedy": {}, "sampled": SAMPLED, "strings": {"graders": ["hendrycks", "symbolic"]}}.items():
        ran, _ = evaluated(name, **keys)
        found[name] = Contract.from_dict(json.loads((ran.folder / "scores.json").read_text())["contract"])
    assert compare(found["greedy"], found["greedy"]) == {}
    assert set(compare(found["greedy"], found["sampled"], allow_mismatch=True)) == {
        "max_tokens", "temperature", "num_samples",
    }  # fmt: skip
    with pytest.raises(ValueError, match="grader: 'symbolic' against 'hendrycks'"):
        compare(found["greedy"], found["strings"])


def test_several_graders(evaluated: Callable[..., Any]) -> None:
    given = [PROBLEMS[0] | {"expected_answer": "0.0"}]
    ran, _ = evaluated(given=given, graders=["hendrycks", "symbolic"])
    assert ran.output[0]["verdicts"] == {"hendrycks": False, "symbolic": True} and ran.output[0]["is_correct"] is False
    amc = json.loads((ran.folder / "scores.json").read_text())["benchmarks"]["amc"]
    assert amc["verdicts"] == {"hendrycks": 0.0, "symbolic": 1.0, "both": 0.0, "either": 1.0}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"num_samples": 4}, "num_samples=4 at temperature 0"),
        ({"num_samples": 0}, "num_samples=0: it must be at least 1"),
        ({"graders": ["best"]}, "got 'best', choose one of default.*or symbolic"),
        ({"graders": []}, "name at least one"),
        ({"extractor": "last"}, "extractor: got 'last'"),
    ],
)
def test_settings_that_cannot_work_are_refused(evaluated: Callable[..., Any], keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"stages\.out.*{said}"):
        evaluated(**keys)


def test_a_problem_without_an_answer_is_refused(evaluated: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"amc 0 has no expected_answer.*require_answers=true"):
        evaluated(given=[PROBLEMS[0] | {"expected_answer": None}])


def test_the_step_of_an_exported_checkpoint(
    evaluated: Callable[..., Any], model: dict[str, Any], tmp_path: Path
) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "checkpoint_2").symlink_to(model["hf_path"])
    checkpoints = [tmp_path / "train" / f"step_00000{step}" / "metadata.json" for step in (40, 80)]
    for path in checkpoints:
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    manifest.write(export, "export", "export_hf", "h", Facts(inputs=checkpoints), 1.0)
    exported = model | {"name": "fake", "hf_path": str(export / "checkpoint_2")}
    ran, _ = evaluated(model=exported)
    assert json.loads((ran.folder / "scores.json").read_text())["step"] == 80
    ran, _ = evaluated("given", model=exported, step=7)
    assert json.loads((ran.folder / "scores.json").read_text())["step"] == 7


def test_early_finish_asks_for_no_more_than_a_majority_needs(evaluated: Callable[..., Any]) -> None:
    """Where all answers of a problem agree, 3 of 4 are a majority; nobody votes where there is no answer."""
    whole, _ = evaluated("whole", **SAMPLED)
    ran, server = evaluated("early", early_finish=True, **SAMPLED)
    asked = Counter(body["prompt"] for body in server.bodies)
    assert asked["Q: amc 0"] == 3 and asked["Q: aime 2"] == 3 and asked["Q: amc 2"] == 4
    kept = {(row["benchmark"], row["id"]): row for row in ran.output}
    assert len(kept) == 6 and set(ran.reasons) == {"not_needed"}
    assert len(ran.output) + len(ran.dropped) == 24 == ran.manifest["rows_in"]
    every = {(row["problem"], row["sample"]): row for row in whole.output}
    assert all(every[row["problem"], row["sample"]]["generation"] == row["generation"] for row in ran.output)
    contract = json.loads((ran.folder / "scores.json").read_text())["contract"]
    assert contract["search"] == "early finish", "its pass@1 is not that of samples drawn at random"


def test_what_was_not_needed_is_asked_for_when_it_is(evaluated: Callable[..., Any], tmp_path: Path) -> None:
    """A later run without early_finish finds what was paid for, and nothing in place of what was not."""
    early, first = evaluated("out", early_finish=True, **SAMPLED)
    early.folder.rename(tmp_path / "out.old1")
    whole, second = evaluated("out", **SAMPLED)
    assert len(whole.output) == 24 and all(row["generation"] for row in whole.output)
    assert len(first.bodies) + len(second.bodies) == 24 and second.bodies


@pytest.mark.parametrize("keys", [{"early_finish": True}, {"use_tools": True}])
def test_samples_that_are_made_one_by_one_cannot_share_a_request(evaluated: Callable[..., Any], keys: Any) -> None:
    with pytest.raises(ValueError, match="samples_per_request=4: with use_tools or early_finish each sample"):
        evaluated(samples_per_request=4, **SAMPLED, **keys)


def test_a_server_that_does_not_count_tokens(run: Callable[..., Ran], rows: Any, model: Any, fake: Any) -> None:
    async def uncounted(request: web.Request, index: int) -> web.Response:
        return web.json_response({"choices": [{"index": 0, "finish_reason": "stop", "text": r"\boxed{0}"}]})

    keys = {"benchmarks": rows(PROBLEMS), "prompt": PROMPT, "model": model | {"name": "fake"}}
    ran = run("evaluate", server=external(fake(uncounted)), **keys)
    assert ran.output[0]["is_correct"] and ran.output[0]["num_generated_tokens"] is None
    assert ran.manifest["tokens"] == {"prompt": 0, "generated": 0}
