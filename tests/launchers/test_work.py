"""A stage of somebody's own, dropped into a stages folder, is planned by what it says of its work and its fields."""

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import recipes.stages
from launchers.estimates import estimate
from launchers.executors import slurm
from launchers.planning import plan, preflight
from launchers.planning.config_paths import made_absolute
from launchers.planning.preflight import Findings
from nemo_ext.machine.gpus import gpu_named
from recipes.field_marks import marked_values
from recipes.find_stage import stage_module, stage_paths
from recipes.run_stage import config_hash, deciding

PARAPHRASE = """
from dataclasses import dataclass, field
from recipes.asking.served import ServedStage, server_processes as processes
from recipes.work import Asking

@dataclass(kw_only=True)
class Config(ServedStage):
    dialogues: str = field(default="", metadata={"path": True})
    turns: int = 3
    patience: int = field(default=1, metadata={"decides": False})

def work(cfg):
    return Asking(input=cfg.dialogues, samples={"*": cfg.turns}, max_tokens=100, rows_are="dialogues")
"""
TUNE = """
from dataclasses import dataclass, field
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.model import Model
from recipes.stage import Stage
from recipes.work import Training

@dataclass(kw_only=True)
class Config(Stage, TrainSettings):
    data: str = field(default="", metadata={"path": True})
    model: Model = field(default_factory=Model)

def work(cfg):
    return Training(cfg)
"""
NOT_DECIDING = {"resources", "client", "workers", "sandbox_urls", "sandbox_token_env"}
SERVER_NOT_DECIDING = {"urls", "api_key_env", "replicas", "concurrency", "startup_timeout_s", "metrics_interval_s"}
READ = {
    "data",
    "input",
    "inputs",
    "first",
    "second",
    "path",
    "benchmarks",
    "checkpoints",
    "seeds",
    "evaluations",
    "texts",
}


@pytest.fixture
def own_stages(tmp_path: Path) -> Iterator[Path]:
    """A stages folder beside ours, with two stages."""
    folder = tmp_path / "stages"
    (folder / "own").mkdir(parents=True)
    for name, text in (("__init__", ""), ("paraphrase", PARAPHRASE), ("tune", TUNE)):
        (folder / "own" / f"{name}.py").write_text(text)
    recipes.stages.__path__.append(str(folder))
    yield folder
    recipes.stages.__path__.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith("recipes.stages.own")]:
        del sys.modules[name]


def planned(run_dir: Path, **keys: object) -> list[plan.PlannedStage]:
    model = {"name": "llama", "hf_path": "meta-llama/Llama-3.1-8B-Instruct", "context_length": 8192}
    gpus = {"nodes": 1, "gpus": 1, "image": "vllm"}
    asks = {"uses": "paraphrase", "model": model, "server": {"kind": "vllm"}, "resources": gpus, **keys}
    trains = {"uses": "tune", "model": model, "resources": gpus, "data": "/nowhere/tokens", "train_iters": 10}
    return plan.resolve(OmegaConf.create({"stages": {"talk": asks, "train": trains}}), run_dir)


def test_its_estimates(own_stages: Path, tmp_path: Path) -> None:
    rows = tmp_path / "dialogues.jsonl"
    rows.write_text('{"turns": []}\n' * 5)
    stages = planned(tmp_path / "run", dialogues=str(rows))
    talk, train = estimate.estimate(stages, stages, slurm.Config(), gpu_named("h100"))
    assert talk.summary == "15 completions x 100 tokens" and talk.gpu_hours
    assert dict(talk.lines)["memory"].startswith("15.0 GiB of weights")
    assert "10 steps" in train.summary and train.refusal and "stages.train needs" in train.refusal


def test_its_paths_are_made_absolute_and_looked_up(
    own_stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Findings()
    preflight.look_at_paths(found, planned(tmp_path / "run", dialogues="talks.jsonl"), None)
    assert [line.split(";")[0] for line in found.failures] == [
        f"stages.talk.dialogues: there is no {tmp_path}/talks.jsonl",
        "stages.train.data: there is no /nowhere/tokens",
    ]


def test_its_limits_may_change_and_the_rest_decides(own_stages: Path, tmp_path: Path) -> None:
    def digest(**keys: object) -> str:
        return planned(tmp_path, **keys)[0].tasks[0].config_hash

    assert digest() == digest(patience=9) == digest(server={"kind": "vllm", "concurrency": 3})
    assert len({digest(), digest(turns=4), digest(server={"kind": "vllm", "max_seq_len": 99})}) == 3


@pytest.mark.parametrize("name", stage_paths())
def test_fields_of_our_stages_that_hold_paths_say_so(name: str) -> None:
    schema = stage_module(name).Config
    content = {field.name: "/x" for field in fields(schema)}
    marked = {key for key, _, marks in marked_values(content, schema) if marks.get("path")}
    texts = {field.name for field in fields(schema) if field.type in (str, list[str], "str", "list[str]")}
    assert marked >= texts & READ


@pytest.mark.parametrize("name", stage_paths())
def test_what_decides_a_result_of_ours_is_as_it_was(name: str) -> None:
    """Else finished runs would be refused, or other results taken for theirs."""
    keys = {field.name for field in fields(stage_module(name).Config)}
    server = dict.fromkeys((*SERVER_NOT_DECIDING, "kind", "model", "seed"), 1) | {"kind": "external"}
    content = dict.fromkeys(keys, 1) | {"uses": name} | ({"server": server} if "server" in keys else {})
    kept = deciding(content)
    assert kept.keys() == keys - NOT_DECIDING
    if "server" in keys:
        assert kept["server"].keys() == server.keys() - SERVER_NOT_DECIDING
    assert config_hash(content) == config_hash({**content, "resources": 2})


def test_a_persons_own_keys_are_no_paths() -> None:
    """An example of a prompt, or a column, may be called `input`."""
    stage = stage_module("generate").Config
    content = {
        "input": "rows",
        "columns": {"input": "query"},
        "by_source": {"input": {"prompt": {"few_shot": [{"path": "a"}]}}},
    }
    made = made_absolute(content, stage)
    assert made["columns"] == content["columns"] and made["by_source"] == content["by_source"]
    assert made["input"] == str(Path("rows").absolute())
