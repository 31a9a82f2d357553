"""What is advised to someone whose training does not fit: it must fit, and nothing in it may be idle."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from launchers.estimates.fit import find_fit, why_not_fit
from nemo_ext.machine.gpus import gpu_named
from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.plan.memory import worst_stage
from nemo_ext.megatron.settings import world_size
from nemo_ext.models.published_shapes import SHAPES
from recipes.stage import Resources
from recipes.stages.training.train_sft import Config
from tests.composing import resolve_recipe

L8, L70, L405 = (SHAPES[f"Llama-3.1-{size}"] for size in ("8B", "70B", "405B"))


def config(nodes: int, tensor: int = 1, pipeline: int = 1, **other: Any) -> Config:
    replicas = nodes * 8 // (tensor * pipeline)
    return Config(
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        data_parallel_size=replicas,
        resources=Resources(nodes=nodes, gpus=8),
        **other,
    )


def changed(cfg: Config, changes: dict[str, Any]) -> Config:
    nodes = changes.get("resources.nodes", cfg.resources.nodes)
    rest = {key: value for key, value in changes.items() if key != "resources.nodes"}
    return replace(cfg, resources=replace(cfg.resources, nodes=nodes), **rest)


@pytest.mark.parametrize(
    ("cfg", "shape", "advised"),
    [
        (config(8, use_distributed_optimizer=False), L8, {"use_distributed_optimizer": True}),
        (config(1), L8, {"recompute_granularity": "full"}),
        (config(8, tensor=8), L70, {"sequence_parallel": True}),
        (config(32, tensor=2, pipeline=2), L70, {"tensor_model_parallel_size": 8, "data_parallel_size": 16}),
    ],
)
def test_the_cheapest_single_change_is_advised(cfg: Config, shape, advised: dict[str, Any]) -> None:
    found = find_fit(cfg, shape, 79.1)
    assert found and found[0] == advised


def test_a_combination_where_no_single_change_is_enough() -> None:
    cfg = config(4, tensor=4, pipeline=2)
    found = find_fit(cfg, L70, 79.1)
    larger = {"tensor_model_parallel_size": 8, "data_parallel_size": 2}
    assert found and found[0] == {"recompute_granularity": "full"} | larger
    for alone in ({"recompute_granularity": "full"}, larger):
        assert worst_stage(L70, changed(cfg, alone)).gib > 79.1


def test_nothing_fits_where_nothing_can() -> None:
    cfg = config(1)
    assert find_fit(cfg, L405, 79.1) is None
    stage = resolve_recipe("sft_full")["train"]
    text = why_not_fit(stage, cfg, L405, gpu_named("h100"))
    assert text and "No setting tried makes it fit" in text


def test_what_fits_is_not_refused() -> None:
    stage = resolve_recipe("sft_full")["train"]
    assert why_not_fit(stage, config(8, tensor=4), L8, gpu_named("h100")) is None


@settings(max_examples=60)
@given(
    shape=st.sampled_from([L8, L70]),
    nodes=st.sampled_from([1, 2, 8, 32]),
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.sampled_from([1, 2, 4]),
    sharded=st.booleans(),
    pack=st.sampled_from([None, 8192, 32768]),
    memory=st.sampled_from([39.4, 79.1, 139.8]),
)
def test_advice_holds(shape, nodes, tensor, pipeline, sharded, pack, memory) -> None:
    assume(nodes * 8 >= tensor * pipeline)
    cfg = config(nodes, tensor, pipeline, use_distributed_optimizer=sharded, pack_length=pack)
    assume(worst_stage(shape, cfg).gib > memory)
    found = find_fit(cfg, shape, memory)
    if found is None:
        return
    changes, needed = found
    advised = changed(cfg, changes)
    validate(advised, shape)
    assert world_size(advised) == advised.resources.nodes * advised.resources.gpus
    assert worst_stage(shape, advised) == needed and needed.gib <= memory
