"""Memory per GPU against published formulas, logs of real runs, and invariants."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.plan.activations import layer_bytes_per_token
from nemo_ext.megatron.plan.memory import (
    GIB,
    bytes_per_parameter,
    checkpoints_on_disk,
    stage_memory,
    stage_parameters,
    worst_stage,
)
from nemo_ext.megatron.plan.pipeline import chunks_in_flight
from nemo_ext.megatron.settings import TrainSettings, padded_vocab
from nemo_ext.models.architectures.decoder import attention, mlp
from nemo_ext.models.layer_cost import LayerCost
from nemo_ext.models.published_shapes import SHAPES, shape_of
from tests.conftest import ROOT

L7, L8, L70 = SHAPES["Llama-2-7b"], SHAPES["Llama-3.1-8B"], SHAPES["Llama-3.1-70B"]

PUBLISHED_PARAMETERS = {
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
    "Llama-2-7b": 6_738_415_616,
    "Llama-2-70b": 68_976_648_192,
    "CodeLlama-7b": 6_738_546_688,
    "CodeLlama-7b-Python": 6_738_415_616,
    "CodeLlama-13b": 13_016_028_160,
    "CodeLlama-13b-Python": 13_015_864_320,
    "CodeLlama-34b": 33_743_970_304,
    "CodeLlama-70b": 68_976_910_336,
    "deepseek-math-7b": 6_910_365_696,
    "Mistral-7B-v0.1": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "Mixtral-8x7B": 46_702_792_704,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-Math-7B": 7_615_616_512,
    "Qwen2.5-72B": 72_706_203_648,
}
"""The totals of the repositories' safetensors."""


def test_parameters_are_exact() -> None:
    assert {name: shape.num_parameters for name, shape in SHAPES.items()} == PUBLISHED_PARAMETERS


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/models/Llama-3.1-8B", "Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "Llama-3.1-70B"),
        ("/models/Llama-3.1-405B-Instruct-FP8", "Llama-3.1-405B"),
        ("codellama/CodeLlama-7b-hf", "CodeLlama-7b"),
        ("codellama/CodeLlama-7b-Instruct-hf", "CodeLlama-7b"),
        ("codellama/CodeLlama-7b-Python-hf", "CodeLlama-7b-Python"),
        ("codellama/CodeLlama-34b-Python-hf", "CodeLlama-34b"),
        ("mistralai/Mixtral-8x7B-v0.1", "Mixtral-8x7B"),
        ("meta-llama/Llama-2-70b-hf", "Llama-2-70b"),
        ("Llama-3.1-80B", None),
        ("/runs/x/export/average", None),
    ],
)
def test_shape_by_name(path: str, known: str | None) -> None:
    assert shape_of(path) is (SHAPES[known] if known else None)


def test_every_model_of_conf_can_be_planned() -> None:
    """On a login node, without its weights."""
    paths = {
        path.stem: OmegaConf.load(path) for path in (ROOT / "conf" / "model").glob("[!t]*.yaml")
    }  # tiny_* are here
    assert {"mistral_7b_v01", "codellama_7b", "codellama_13b", "codellama_34b", "codellama_70b", "llama2_70b"} < set(
        paths
    )
    for name, model in paths.items():
        shape = shape_of(str(model.hf_path))
        assert shape is not None and shape.max_positions >= model.context_length, name
    assert shape_of("Qwen2.5-Math-7B-Instruct") is not None


def test_the_first_openmath_students_are_as_their_configs_say() -> None:
    assert {shape.rope_theta for name, shape in SHAPES.items() if name.startswith("CodeLlama")} == {1e6}
    assert {name: shape.sliding_window for name, shape in SHAPES.items() if shape.sliding_window} == {
        "Mistral-7B-v0.1": 4096
    }
    validate(TrainSettings(seq_length=4096), SHAPES["Mistral-7B-v0.1"])
    with pytest.raises(ValueError, match=r"seq_length=8192: the model attends to 4096 tokens back"):
        validate(TrainSettings(seq_length=8192), SHAPES["Mistral-7B-v0.1"])


def test_a_model_without_layers_here_is_not_trained() -> None:
    with pytest.raises(ValueError, match=r"model_type=mixtral: the trainer has no layers for .*a teacher on a server"):
        validate(TrainSettings(), SHAPES["Mixtral-8x7B"])


@given(st.integers(1, 200).map(lambda n: 64 * n), st.sampled_from([1, 2, 4, 8]))
def test_gpt_layer_is_korthikanti_table_2(hidden: int, tensor: int) -> None:
    """Table 2 without the 5 a s / h of stored scores, which fused attention and selective recompute leave out."""
    heads = hidden // 64
    shape = replace(L7, hidden_size=hidden, ffn_size=4 * hidden, num_heads=heads, num_kv_heads=heads, head_dim=64)
    dropout_masks = LayerCost(kept_whole=hidden)  # two of a byte
    gpt = attention(shape) + mlp(shape, gated=False) + dropout_masks
    layer = {
        parallel: layer_bytes_per_token(gpt, tensor=tensor, sequence_parallel=parallel, selective=True)
        for parallel in (False, True)
    }
    assert layer[False] == pytest.approx(hidden * (10 + 24 / tensor))
    assert layer[True] == pytest.approx(34 * hidden / tensor)


def test_bytes_per_parameter_are_megatrons() -> None:
    """theoretical_memory_usage.py: 18, and 6 + 12 / data parallel size with the distributed optimizer."""
    assert sum(bytes_per_parameter(TrainSettings(use_distributed_optimizer=False))) == 18
    assert sum(bytes_per_parameter(TrainSettings(data_parallel_size=16))) == 6 + 12 / 16
    over_both = TrainSettings(data_parallel_size=4, context_parallel_size=2)
    assert sum(bytes_per_parameter(over_both)) == 6 + 12 / 8
    small = TrainSettings(use_precision_aware_optimizer=True, exp_avg_dtype="bf16", exp_avg_sq_dtype="bf16")
    assert sum(bytes_per_parameter(small)) == 6 + 8
    assert sum(bytes_per_parameter(TrainSettings(precision="fp32"))) == 16


@pytest.mark.parametrize(("layers", "formula"), [(32, 20_029.52), (16, 10_764.77)])
def test_weights_and_optimizer_of_megatrons_log_line(layers: int, formula: float) -> None:
    """ "Theoretical memory footprints: weight and optimizer=20029.52 MB" of Llama-2-7B, PP4 DP2."""
    setup = TrainSettings(pipeline_model_parallel_size=4, data_parallel_size=2)
    count = stage_parameters(replace(L7, num_layers=layers), setup, 0)
    assert count * sum(bytes_per_parameter(setup)) / 2**20 == pytest.approx(formula, rel=1e-4)


@pytest.mark.parametrize(("chunks", "penalty"), [(2, 1 + 3 / 8), (5, 1 + 3 / 20), (10, 1 + 3 / 40)])
def test_interleaved_schedule_holds_what_megatron_says(chunks: int, penalty: float) -> None:
    """theoretical_memory_usage.py: 1 + (pp - 1) / (pp x vp) times the activations of pp micro-batches."""
    setup = TrainSettings(pipeline_model_parallel_size=4, virtual_pipeline_model_parallel_size=chunks)
    assert chunks_in_flight(setup, 0) == pytest.approx(4 * chunks * penalty)


def test_stages_share_all_parameters() -> None:
    setup = TrainSettings(pipeline_model_parallel_size=4)
    assert sum(stage_parameters(L8, setup, stage) for stage in range(4)) == L8.num_parameters
    tied = SHAPES["Qwen2.5-1.5B"]
    copies = tied.vocab_size * tied.hidden_size  # the last stage has its own
    assert sum(stage_parameters(tied, setup, stage) for stage in range(4)) == tied.num_parameters + copies
    assert stage_parameters(tied, TrainSettings(), 0) == tied.num_parameters


def test_tensor_parallel_ranks_split_matrices_and_repeat_norms() -> None:
    setup = TrainSettings(tensor_model_parallel_size=8)
    norms = (2 * L8.num_layers + 1) * L8.hidden_size
    pad = 2 * (padded_vocab(setup, L8) - L8.vocab_size) * L8.hidden_size
    assert 8 * stage_parameters(L8, setup, 0) == L8.num_parameters + 7 * norms + pad


def test_the_released_70b_topology_fits_80_gb() -> None:
    setup = TrainSettings(
        tensor_model_parallel_size=8, pipeline_model_parallel_size=2, data_parallel_size=16, sequence_parallel=True
    )
    worst = worst_stage(L70, setup)
    assert worst.stage == 0 and 35 < worst.gib < 50
    assert worst.total == pytest.approx(sum(worst.parts().values()))


def test_loss_is_on_the_last_stage_only() -> None:
    setup = TrainSettings(pipeline_model_parallel_size=2)
    first, last = (stage_memory(L8, setup, stage).temporary for stage in (0, 1))
    assert last / GIB == pytest.approx(4096 * 128256 * 6 / GIB) and first < last / 2


MORE_MEMORY_TO_LESS = [
    ({"use_distributed_optimizer": False}, {"use_distributed_optimizer": True}),
    ({}, {"sequence_parallel": True}),
    ({"recompute_granularity": None}, {"recompute_granularity": "full"}),
    ({"pack_length": 8192}, {"pack_length": 4096}),
    ({}, {"data_parallel_size": 16}),
    ({}, {"tensor_model_parallel_size": 8}),
    ({}, {"context_parallel_size": 2}),
    ({"virtual_pipeline_model_parallel_size": 2}, {"virtual_pipeline_model_parallel_size": 4}),
    ({"virtual_pipeline_model_parallel_size": 2}, {"virtual_pipeline_model_parallel_size": None}),
    ({}, {"use_precision_aware_optimizer": True, "exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "bf16"}),
    ({"recompute_granularity": "full"} | {"recompute_method": "block"}, {"recompute_num_layers": 3}),
    ({"fp8": "hybrid"}, {"fp8": None}),
]  # fmt: skip


@pytest.mark.parametrize(("more", "less"), MORE_MEMORY_TO_LESS, ids=lambda value: " ".join(value))
def test_what_saves_memory_is_seen_to(more: dict, less: dict) -> None:
    base = TrainSettings(tensor_model_parallel_size=4, pipeline_model_parallel_size=4, data_parallel_size=4)
    before = replace(base, **more)
    after = replace(before, **less)
    validate(before, L70)
    validate(after, L70)
    assert worst_stage(L70, after).total < worst_stage(L70, before).total


@settings(max_examples=200)
@given(
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.sampled_from([1, 2, 4, 8]),
    chunks=st.sampled_from([None, 2, 4]),
    context=st.sampled_from([1, 2]),
    recompute=st.sampled_from([None, "selective", "full"]),
    method=st.sampled_from(["uniform", "block"]),
    group=st.integers(1, 12),
    sequence=st.booleans(),
)
def test_full_recompute_never_costs_memory(tensor, pipeline, chunks, context, recompute, method, group, sequence):
    setup = TrainSettings(
        tensor_model_parallel_size=tensor, pipeline_model_parallel_size=pipeline, context_parallel_size=context,
        virtual_pipeline_model_parallel_size=chunks, recompute_granularity=recompute, recompute_method=method,
        recompute_num_layers=group, sequence_parallel=sequence,
    )  # fmt: skip
    try:
        validate(setup, L8)
    except ValueError:
        assume(False)
    for stage in range(pipeline):
        needed = stage_memory(L8, setup, stage)
        assert min(needed.parts().values()) > 0
        plain = stage_memory(L8, replace(setup, recompute_granularity=None), stage)
        # a recomputed group is held once beside what is kept, so one chunk in flight alone may not gain
        assert needed.activations <= plain.activations * 1.3


def test_checkpoints_on_disk() -> None:
    every = TrainSettings(train_iters=20000, save_interval=3330)
    assert checkpoints_on_disk(every) == 7  # 3330 ... 19980 and 20000
    assert checkpoints_on_disk(replace(every, keep_checkpoints=2)) == 3  # the third is there before the first goes
    # 3330 to 16650 stay; at the end 16650 is one of the newest, with 19980 and 20000
    kept = replace(every, train_iters=16650, save_interval=1110, keep_checkpoints=1, keep_interval=3330)
    assert checkpoints_on_disk(kept) == 6
