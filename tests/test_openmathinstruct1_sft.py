"""The students of OpenMathInstruct-1: each one's published settings follow from its name alone."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from omegaconf import OmegaConf

from launchers.estimates import estimate
from launchers.executors import slurm
from launchers.planning import resolvers
from launchers.planning.resolvers import CONF
from nemo_ext.megatron.settings import world_size
from recipes.stages.training import train_sft
from tests.composing import compose_recipe, resolve_recipe

RECIPE = "openmathinstruct1_sft"
ROWS = 1_023_677
PUBLISHED = {  # arXiv 2402.10176: epochs, learning rate, TP, PP, GPUs
    "mistral_7b_v01": (4, 1e-6, 4, 1, 64),
    "codellama_7b": (4, 2e-5, 4, 1, 64),
    "codellama_13b": (4, 2e-5, 4, 1, 64),
    "codellama_34b": (4, 1e-5, 8, 1, 128),
    "llama2_70b": (2, 1e-5, 8, 2, 256),
    "codellama_70b": (3, 1e-5, 8, 2, 256),
}
SEVENTY = "server@student_server=trtllm_70b"
SERVERS = {
    "codellama_7b": ("student_server.max_batch_size=32",),
    "codellama_13b": ("student_server.max_batch_size=16",),
    "codellama_34b": (SEVENTY,),
    "codellama_70b": (SEVENTY,),
    "llama2_70b": (SEVENTY, "student_server.max_seq_len=4096"),
}
"""As the recipe's comment says."""


def words(student: str) -> tuple[str, ...]:
    return (f"model@student={student}", *SERVERS.get(student, ()))


def config(stage: str, *given: str) -> Any:
    return resolve_recipe(RECIPE, *given)[stage].tasks[0].typed()


@pytest.mark.parametrize("student", PUBLISHED)
def test_a_student_trains_as_published(student: str) -> None:
    epochs, lr, tensor, pipeline, gpus = PUBLISHED[student]
    train = config("train", *words(student))
    assert train.model.name == config("evaluate", *words(student)).model.name == student
    assert (train.lr, train.tensor_model_parallel_size, train.pipeline_model_parallel_size) == (lr, tensor, pipeline)
    assert world_size(train) == train.resources.nodes * train.resources.gpus == gpus
    assert (train.global_batch_size, train.seq_length, train.weight_decay) == (128, 4096, 0.01)
    assert (train.hidden_dropout, train.attention_dropout) == (0.1, 0.0)
    assert (train.adam_beta1, train.adam_beta2, train.lr_decay_style) == (0.9, 0.98, "constant")
    assert train.train_iters == epochs * 7996, "7,997 batches of 128 an epoch, and two checkpoints"
    assert 0.999 * epochs < Fraction(train.train_iters * 128, ROWS) <= epochs
    assert config("average", *words(student)).steps == [3998 * number for number in range(1, 2 * epochs + 1)]
    assert train.keep_interval == 3998


@pytest.mark.parametrize("student", PUBLISHED)
def test_a_student_and_its_server_fit_h100s(student: str) -> None:
    stages = list(resolve_recipe(RECIPE, *words(student)).values())
    cluster = slurm.Config(gpu="h100")
    found = {each.stage: each for each in estimate.estimate(stages, stages, cluster, estimate.gpu_of(cluster, stages))}
    assert found["train"].memory, "the shape is known"
    assert [
        (each.stage, each.refusal, each.warnings) for each in found.values() if each.refusal or each.warnings
    ] == []


def test_the_recipe_says_how_each_is_served() -> None:
    comment = (CONF / "recipe" / f"{RECIPE}.yaml").read_text().partition("# @package _global_")[2]
    assert all(word in comment for given in SERVERS.values() for word in given)


def test_every_row_is_trained_and_scored_with_python() -> None:
    assert config("prepare_sft").validation_fraction == 0
    evaluate = config("evaluate")
    assert (evaluate.use_tools, evaluate.tools.max_executions, evaluate.tools.on_error) == (True, 6, "go_on")
    assert evaluate.tools.format == "llm_code"


def test_rows_of_ones_own_change_the_steps() -> None:
    train = config("train", "sizes.rows=64000")
    assert (train.train_iters, train.keep_interval) == (2000, 250)
    with pytest.raises(ValueError, match="255 rows are less than 2 batches of 128"):
        resolvers.epoch_steps(4, 255, 128, 2)


def test_another_student_is_refused_with_the_keys_to_give() -> None:
    given = ("model@student=qwen25_math_7b",)
    with pytest.raises(
        ValueError, match=r"sizes\.students has no \w+ for qwen25_math_7b, only for .*sizes\.\w+=<yours>"
    ):
        resolve_recipe(RECIPE, *given)
    own = "{epochs: 3, lr: 3e-6, tensor_model_parallel_size: 2, pipeline_model_parallel_size: 1, sequence_parallel: false}"
    train = config("train", *given, f"+sizes.students.qwen25_math_7b={own}")
    assert (train.lr, train.train_iters, train.resources.nodes) == (3e-6, 3 * 7996, 4)
    assert config("train", "sizes.lr=5e-6", "sizes.epochs=2").train_iters == 2 * 7996


def test_its_rows_are_not_those_of_openmathinstruct2() -> None:
    assert compose_recipe(RECIPE, "data=rows.jsonl").data == "rows.jsonl"
    assert compose_recipe(RECIPE, "+scale=tiny").data == "toy://solved"
    default = OmegaConf.load(CONF / "recipe" / f"{RECIPE}.yaml")
    assert "openmathinstruct1" in OmegaConf.to_container(default)["data"]  # type: ignore[operator]


def test_paper_values_are_met_but_for_attention_dropout() -> None:
    stages = resolve_recipe(RECIPE)
    train = stages["train"].tasks[0].content
    paper = {each.key.removeprefix("train."): each.value for each in stages["report"].tasks[0].typed().paper}
    others = {key: value for key, value in paper.items() if train.get(key, 0.0) != value}
    assert others == {"attention_dropout": 0.1} and len(paper) == 7


def test_attention_dropout_is_refused_on_gpus() -> None:
    train = config("train")
    with pytest.raises(ValueError, match=r"stages\.train: attention_dropout=0\.1 keeps every attention weight"):
        train_sft.check(replace(train, attention_dropout=0.1, layers="local"))
    train_sft.check(replace(config("train", "+scale=tiny"), attention_dropout=0.1, layers="local"))
