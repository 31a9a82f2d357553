"""Rows from outside in every stage that takes a person's own: known layouts, other columns, a split of a folder."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from omegaconf import OmegaConf

from launchers.planning.recipe_files import RECIPES
from nemo_ext.records import manifest
from recipes import run_stage
from recipes.find_stage import stage_module, stage_paths
from recipes.stage import ReadsRows
from tests.nemo_ext.serving.fake_server import reply_to
from tests.recipes.conftest import Ran, external, lines, write_config

MORE = {"expected_answer": "2", "predicted_answer": "3", "is_correct": True, "verdict": "undecided"}
COUNT = 6
JUDGE = {"name": "j", "template": "base", "user": "{problem} | {expected_answer} | {predicted_answer}"}
STAGES: dict[str, dict[str, Any]] = {
    "grade": {},
    "filter": {"steps": [{"name": "no_box"}]},
    "vote": {},
    "select_code": {},
    "parse_replies": {"parser": "boxed", "to": "boxed"},
    "deduplicate": {},
    "downsample": {},
    "rescore": {"graders": ["symbolic"]},
    "inject_noise": {"kind": "mispaired", "rate": 0.0},
    "match_coverage": {},
    "decontaminate": {"judge": "none", "ngrams": [30], "server": {"kind": "embedded"}},
    "publish_data": {},
    "judge_answers": {"prompt": JUDGE},
    "score_rewards": {},
}


def asked(number: int) -> dict[str, str]:
    return {"ask": f"What is {number} and {number}?", "reply": rf"It is \boxed{{{number % 3}}}."}


def talk(number: int) -> list[dict[str, str]]:
    row = asked(number)
    return [{"role": "user", "content": row["ask"]}, {"role": "assistant", "content": row["reply"]}]


def layouts() -> dict[str, Callable[[int], dict[str, Any]]]:
    return {
        "problem + generation": lambda n: {"problem": asked(n)["ask"], "generation": asked(n)["reply"]},
        "messages": lambda n: {"messages": talk(n)},
        "conversations": lambda n: {"conversations": [{"from": t["role"], "value": t["content"]} for t in talk(n)]},
        "prompt + response": lambda n: {"prompt": asked(n)["ask"], "response": asked(n)["reply"]},
        "instruction + input + output": lambda n: {
            "instruction": asked(n)["ask"], "input": "", "output": asked(n)["reply"],
        },
    }  # fmt: skip


@pytest.fixture
def stage_keys(rows, model: dict[str, Any], fake: Any, tmp_path: Path):
    """The keys of one run of a stage on `source`."""

    async def says_true(request: web.Request, _: int) -> web.StreamResponse:
        body = await request.json()
        said = "True" if "verdict" in json.dumps(body) or "|" in json.dumps(body) else "reward:-1.5"
        return reply_to(body, said)

    def make(uses: str, source: str) -> dict[str, Any]:
        keys = dict(STAGES[uses])
        if uses == "match_coverage":
            return keys | {"first": source, "second": source}
        if uses == "decontaminate":
            test = {"id": "1", "benchmark": "b", "problem": "Something else altogether?", "expected_answer": "1"}
            return keys | {"inputs": [source], "benchmarks": rows([test]), "model": model}
        if uses in ("judge_answers", "score_rewards"):
            keys |= {"model": model | {"name": "fake"}, "server": external(fake(says_true))}
        return keys | {"input": source} | ({"model": model} if uses == "filter" else {})

    return make


def written(folder: Path) -> list[dict[str, Any]]:
    output = folder / "output.jsonl"
    if output.exists():
        return lines(output)
    import pyarrow.parquet as pq

    return [
        row for path in sorted(folder.glob("dataset/data/train-*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def start(folder: Path, uses: str, keys: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    path = write_config(folder, uses, keys)
    module, config = run_stage.load(path)
    if hasattr(module, "check"):
        module.check(config)
    run_stage.run(path)
    return written(folder), manifest.read(folder)


def save(path: Path, data: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    return str(path)


def pairs(output: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(row["problem"], row.get("generated_solution") or row["generation"]) for row in output}


ALL = {(row["ask"], row["reply"]) for row in map(asked, range(COUNT))}


@pytest.mark.parametrize("uses", STAGES)
def test_every_known_layout_is_a_problem_and_its_solution(stage_keys, tmp_path: Path, uses: str) -> None:
    makers = layouts()
    data = [make(n) | MORE | {"layout": name} for n in range(COUNT) for name, make in makers.items()]
    dialogue = {"messages": [*talk(0), *talk(1)], **MORE}
    if uses == "deduplicate":  # the layouts say the same, so that one row of each problem stays
        expected = Counter({"duplicate": COUNT * (len(makers) - 1), "several_turns": 1})
    else:
        expected = Counter({"several_turns": 1})
    output, facts = start(
        tmp_path / "out", uses, stage_keys(uses, save(tmp_path / "in" / "rows.jsonl", [*data, dialogue]))
    )
    assert facts["dropped"] == expected
    assert pairs(output) == ALL
    assert facts["figures"]["layouts"] == dict.fromkeys(sorted(makers), COUNT)


@pytest.mark.parametrize("uses", STAGES)
def test_columns_and_a_split(stage_keys, tmp_path: Path, uses: str) -> None:
    folder = tmp_path / "in"
    save(folder / "train-00000-of-00001.jsonl", [asked(n) | MORE | {"other": "never"} for n in range(COUNT)])
    save(folder / "test-00000-of-00001.jsonl", [{"ask": "no", "reply": "no", "other": "never"}])
    keys = stage_keys(uses, str(folder)) | {"split": "train", "columns": {"problem": "ask", "generation": "reply"}}
    output, facts = start(tmp_path / "out", uses, keys)
    assert pairs(output) == ALL and facts["dropped"] == {}
    assert [Path(each["path"]).name for each in facts["inputs"] if "in/t" in each["path"]][:1] == [
        "train-00000-of-00001.jsonl"
    ]

    # the same folder, so that nothing of the columns before may be taken up
    keys["columns"] = {"problem": "ask", "generation": "reply", "other": None}
    path = write_config(tmp_path / "out", uses, keys)
    digest = run_stage.config_hash(dict(OmegaConf.to_container(OmegaConf.load(path))))
    assert manifest.out_of_date(tmp_path / "out", digest) == "its config changed"
    keys["columns"] = {"problem": ["ask", "other"], "generation": "reply"}
    again, _ = start(tmp_path / "out", uses, keys)
    assert pairs(again) == {(f"{problem} never", reply) for problem, reply in ALL}

    with pytest.raises(
        ValueError, match=r"columns: problem: question_text; none of .* They have ask, expected_answer"
    ):
        start(tmp_path / "wrong", uses, keys | {"columns": {"problem": "question_text"}})


def test_each_stage_that_reads_a_person_s_rows_is_tested_here() -> None:
    modules = {name: stage_module(name) for name in stage_paths()}
    readers = {name for name, module in modules.items() if issubclass(module.Config, ReadsRows)}
    assert readers == STAGES.keys() | {"make_preferences"}, "whose rows are pairs: curation/test_make_preferences.py"


def test_recipes_hand_columns_and_split_to_whatever_reads_a_person_s_rows() -> None:
    lacking = set()
    for path in RECIPES.rglob("*.yaml"):
        for name, stage in (OmegaConf.to_container(OmegaConf.load(path)).get("stages") or {}).items():
            given = [stage.get(key) for key in ("input", "first", "inputs", "evaluations")]
            if any(f"${{{key}}}" in str(given) for key in ("input", "data", "second")):
                handed = (stage.get("columns"), stage.get("split")) == ("${columns}", "${split}")
                lacking |= set() if handed else {f"{path.stem}/{name}"}
    evaluations = {
        "choose_answers/choose_answers",
        "compare/compare",
        "explore/explore",
        "export_scores/export_scores",
    }
    assert lacking == evaluations


def test_seed_problems_in_other_columns(run, tmp_path: Path) -> None:
    save(tmp_path / "in" / "train.jsonl", [asked(n) for n in range(COUNT)])
    save(tmp_path / "in" / "test.jsonl", [{"ask": "no", "reply": "no"}])
    talks = save(tmp_path / "talks.jsonl", [{"messages": talk(COUNT)}, {"messages": [*talk(0), *talk(1)]}])
    named = {"path": str(tmp_path / "in"), "split": "train", "columns": {"problem": "ask", "solution": "reply"}}
    ran: Ran = run("prepare_problems", sources={"mine": named, "talks": {"path": talks}})
    assert [(row["problem"], row["expected_answer"]) for row in ran.output] == [
        (asked(n)["ask"], str(n % 3)) for n in range(COUNT + 1)
    ]
    assert ran.reasons == ["several_turns"]
    with pytest.raises(ValueError, match=r"sources\.mine\.columns: problem: query; none of .* They have ask, reply"):
        run("prepare_problems", sources={"mine": named | {"columns": {"problem": "query"}}}, folder="wrong")
