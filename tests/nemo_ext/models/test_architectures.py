"""An architecture whose layers differ is one file to all planners: every figure against counting by hand."""

import json
from dataclasses import asdict, replace
from math import prod
from pathlib import Path

import pytest
import torch

from launchers.estimates.fit_serving import _cache, _parts
from nemo_ext.megatron import families as trained
from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.plan.flops import flops_per_token, hardware_flops, model_flops
from nemo_ext.megatron.plan.memory import stage_memory, stage_parameters
from nemo_ext.megatron.settings import TrainSettings, padded_vocab
from nemo_ext.megatron.weights.mapping import mapping_of
from nemo_ext.models import architectures, families
from nemo_ext.models.model import Model
from nemo_ext.models.published_shapes import SHAPES
from nemo_ext.models.shape import ModelShape
from nemo_ext.serving.embedded.forward.pages import Pages
from nemo_ext.serving.memory import GIB, RUNTIME_GIB, ServingMemory, serving_memory
from nemo_ext.serving.servers import trtllm

FAMILY = '''"""Mixers with a state, attention and MLPs, by a pattern in config.json."""

from nemo_ext.models.family import Family

FAMILY = Family(defaults={}, architecture="pattern", extra_keys=("pattern", "state_size"))
'''
ARCHITECTURE = '''"""A letter of the pattern is a layer: S a mixer with a state, * attention, - an MLP that is not gated."""

from nemo_ext.models.architectures.decoder import attention, mlp
from nemo_ext.models.layer_cost import LayerCost


def layers(shape):
    kinds = {"S": mixer(shape), "*": attention(shape), "-": mlp(shape, gated=False)}
    return [kinds[letter] for letter in shape.extra["pattern"]]


def mixer(shape):
    hidden, inner, state = shape.hidden_size, 2 * shape.hidden_size, 2 * shape.hidden_size * shape.extra["state_size"]
    return LayerCost(
        split_parameters=3 * hidden * inner + 2 * inner,
        whole_parameters=hidden,
        matmul_parameters=3 * hidden * inner,
        scan_flops_per_token=6 * state,
        kept_whole=2 * hidden,
        kept_split=3 * inner,
        gradients_whole=2 * hidden,
        gradients_split=4 * inner,
        peak_split=2 * inner,
        state_bytes=4 * state,
    )
'''
CONFIG = {
    "model_type": "pattern",
    "pattern": "SS*-S*--",
    "state_size": 16,
    "num_hidden_layers": 8,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 11,
    "max_position_embeddings": 4096,
}
# Matrices: S 3 x 8 x 16 = 384, * 8 x 2 x (16 + 8) = 384, - 2 x 8 x 12 = 192. With vectors and the norm: 424, 392, 200.
VOCABULARY = 128 * 8
"""Of a matrix, padded."""
TOKENS = 64


def plan(**changes: object) -> TrainSettings:
    return TrainSettings(seq_length=TOKENS, pack_length=TOKENS, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint's config.json, of an architecture that was added as a file."""
    for package, text in ((families, FAMILY), (architectures, ARCHITECTURE), (trained, "")):
        added = tmp_path / package.__name__
        added.mkdir()
        (added / "pattern.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(added)])
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.fixture
def shape(folder: Path) -> ModelShape:
    return ModelShape.from_hf(folder)


@pytest.mark.parametrize("name", sorted(name for name, shape in SHAPES.items() if shape.model_type != "mixtral"))
def test_costs_count_the_tensors_that_are_mapped(name: str) -> None:
    shape = SHAPES[name]
    sizes = [mapping_of(shape).layer_sizes(shape, layer) for layer in range(shape.num_layers)]
    assert [layer.split_parameters + layer.whole_parameters for layer in shape.layers] == [
        sum(map(prod, of_layer.values())) for of_layer in sizes
    ]


def test_its_own_keys_are_read_and_kept(folder: Path, shape: ModelShape) -> None:
    assert shape.extra == {"pattern": "SS*-S*--", "state_size": 16}
    assert ModelShape.from_json(json.loads(json.dumps(asdict(shape)))) == shape
    (folder / "config.json").write_text(json.dumps({key: CONFIG[key] for key in CONFIG if key != "pattern"}))
    with pytest.raises(ValueError, match="it has no pattern"):
        ModelShape.from_hf(folder)
    with pytest.raises(ValueError, match="num_hidden_layers=8, but .*pattern lists 3 layers"):
        _ = replace(shape, extra={"pattern": "S*-", "state_size": 16}).num_parameters


def test_parameters(shape: ModelShape) -> None:
    assert shape.num_parameters == 3 * 424 + 2 * 392 + 3 * 200 + 2 * 11 * 8 + 8


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, ["SS*-S*--"]),
        ({"pipeline_model_parallel_size": 2}, ["SS*-", "S*--"]),
        ({"pipeline_model_parallel_size": 4}, ["SS", "*-", "S*", "--"]),
        ({"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2}, ["SSS*", "*---"]),
    ],
)
def test_a_stage_has_the_parameters_of_its_own_layers(shape: ModelShape, changes: dict, stages: list[str]) -> None:
    for tensor in (1, 2):
        settings = plan(tensor_model_parallel_size=tensor, **changes)
        validate(settings, shape)
        sizes = {letter: split // tensor + 8 for letter, split in {"S": 416, "*": 384, "-": 192}.items()}
        counts = [sum(sizes[letter] for letter in letters) for letters in stages]
        vocabulary = padded_vocab(settings, shape) // tensor * 8
        counts[0] += vocabulary
        counts[-1] += vocabulary + 8
        assert [stage_parameters(shape, settings, stage) for stage in range(len(stages))] == counts


def test_fp8_copies_are_of_a_stages_own_matrices(shape: ModelShape) -> None:
    plain = plan(pipeline_model_parallel_size=2)
    copies = [
        stage_memory(shape, replace(plain, fp8="hybrid"), stage).weights - stage_memory(shape, plain, stage).weights
        for stage in (0, 1)
    ]
    assert copies == [2 * (2 * 384 + 384 + 192), 2 * (384 + 384 + 2 * 192)]


# Bytes per token in 16 bit: S keeps 2 x (16 + 48) = 128, * 2 x (16 + 48) + 4 x 4 = 144, - 2 x (16 + 24) = 80; a layer's
# input has 16, and the final norm keeps 32.
@pytest.mark.parametrize(
    ("changes", "per_token"),
    [
        ({}, [2 * (2 * 128 + 144 + 80), 128 + 144 + 2 * 80 + 32]),
        ({"recompute_granularity": "selective"}, [2 * (2 * 128 + 128 + 80), 128 + 128 + 2 * 80 + 32]),
        ({"recompute_granularity": "full"}, [2 * 4 * 16 + 144, 4 * 16 + 144 + 32]),
        ({"recompute_granularity": "full", "recompute_num_layers": 2}, [2 * 2 * 16 + 256, 2 * 16 + 272 + 32]),
        (
            {"recompute_granularity": "full", "recompute_method": "block"},
            [2 * (16 + 128 + 144 + 80) + 128, 16 + 144 + 2 * 80 + 128 + 32],
        ),
        # Chunks SS 256 and S* 272 on the first stage: 5 in flight, 3 of the smaller at most. *- 224 and -- 160 on the last:
        # 3 in flight, all of the larger when the next round begins.
        ({"virtual_pipeline_model_parallel_size": 2}, [3 * 256 + 2 * 272, 3 * 224 + 32]),
    ],
)
def test_a_stage_keeps_the_activations_of_its_own_layers(
    shape: ModelShape, changes: dict, per_token: list[int]
) -> None:
    settings = plan(pipeline_model_parallel_size=2, **changes)
    assert [stage_memory(shape, settings, stage).activations for stage in (0, 1)] == [TOKENS * x for x in per_token]


def test_a_backward_pass_holds_the_largest_layer_of_its_stage(shape: ModelShape) -> None:
    settings = plan(pipeline_model_parallel_size=4)
    held = [stage_memory(shape, settings, stage).temporary for stage in range(4)]
    largest = [2 * (16 + 64), 2 * (16 + 32), 2 * (16 + 64), (2 * 2 + 4) * VOCABULARY // 8]
    assert held == [TOKENS * x for x in largest]


def test_flops(shape: ModelShape) -> None:
    per_token = 6 * (3 * 384 + 2 * 384 + 3 * 192 + 11 * 8) + 3 * 3 * (6 * 16 * 16)
    per_square = 3 * 2 * (2 * 16)  # of the two layers with attention
    assert model_flops(shape, 10, 58) == 10 * per_token + 58 * per_square
    assert flops_per_token(shape, 5) == per_token + 5 * per_square
    first_of_each_stage = plan(
        pipeline_model_parallel_size=2, recompute_granularity="full", recompute_method="block"
    )  # two mixers
    again = hardware_flops(shape, first_of_each_stage, 10, 58) - model_flops(shape, 10, 58)
    assert again == 10 * 2 * (2 * 384 + 6 * 16 * 16)


def served(shape: ModelShape, **sizes: int) -> ServingMemory:
    return serving_memory(
        shape, Model(name="m", hf_path="/absent", context_length=100), trtllm.Config(**sizes), gpu_gib=5
    )


def test_serving(shape: ModelShape) -> None:
    one, two_stages, four_gpus = served(shape), served(shape, pp_size=2), served(shape, tp_size=4)
    assert one.weights_gib * GIB == 2 * (5 * 384 + 3 * 192 + 8 * 8 + 2 * 11 * 8)
    assert two_stages.weights_gib * GIB == 2 * (3 * 384 + 192 + 4 * 8 + 11 * 8), "the first stage has most"
    # 2 key-value heads on 4 GPUs: each is held twice, and so are the 64 parameters of each one's keys and values
    linear = (3 * 384 + 3 * 192 + 2 * 256) // 4 + 2 * 64
    assert four_gpus.weights_gib * GIB == 2 * (linear + 8 * 8 + 2 * 11 * 8 // 4)
    step = 8192 * 2 * (6 * 8 + 48) + 256 * 2 * 4 * 11  # attention's intermediates are the largest
    assert (one.buffers_gib - RUNTIME_GIB) * GIB == pytest.approx(step)
    per_token, state = 2 * 2 * 2 * 8, 3 * 4 * 16 * 16
    assert [(x.kv_bytes_per_token, x.state_bytes) for x in (one, two_stages, four_gpus)] == [
        (per_token, state),
        (per_token // 2, state * 2 // 3),
        (per_token // 2, state // 4),
    ]
    assert one.kv_gib is not None and one.kv_tokens is None
    assert one.sequences(100) == int(one.kv_gib * GIB / (100 * per_token + state))


def test_the_plan_says_what_a_sequence_holds(shape: ModelShape) -> None:
    server = trtllm.Config()
    assert _parts(served(shape), server).endswith("64 bytes of cache per token and 3,072 per sequence")
    assert _cache(served(shape), server, 100, 100) == ("0.9 GiB per GPU: 101,871 sequences of 100; max_batch_size 256")


def test_only_layers_with_attention_get_pages(shape: ModelShape) -> None:
    pages = Pages(shape, num_slots=1, context_length=32, dtype=torch.float32)
    assert len(pages.keys) == len(pages.values) == 2


def test_experts_that_a_token_is_not_sent_to_are_held_and_not_multiplied(tmp_path: Path) -> None:
    """Mixtral-8x7B: 46.7 G parameters, 12.9 G of them for each token (arXiv 2401.04088)."""
    shape = SHAPES["Mixtral-8x7B"]
    used = shape.num_parameters - sum(layer.idle_parameters for layer in shape.layers)
    assert (round(shape.num_parameters / 1e9, 1), round(used / 1e9, 1)) == (46.7, 12.9)
    one, two = served(shape), served(shape, tp_size=2)
    assert one.weights_gib * GIB == 2 * (shape.num_parameters - shape.hidden_size)
    routers_and_norms = 32 * (8 + 2) * 4096
    assert two.weights_gib * GIB == one.weights_gib * GIB / 2 + routers_and_norms
    fp8 = Model(name="m", hf_path="/absent", context_length=100, weights_dtype="fp8")
    in_fp8 = serving_memory(shape, fp8, trtllm.Config(), None).weights_gib * GIB
    assert in_fp8 == one.weights_gib * GIB - 32 * (2 * 4096 * (4096 + 1024) + 8 * 3 * 4096 * 14336)


def test_a_mixtral_folder_is_planned_and_its_tensors_are_not_read(tmp_path: Path) -> None:
    sizes = {"num_local_experts": 4, "model_type": "mixtral", "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | sizes))
    shape = ModelShape.from_hf(tmp_path)
    assert shape.extra == {"num_local_experts": 4, "num_experts_per_tok": 2}
    with pytest.raises(
        ValueError, match=r"model_type=mixtral: tensors of .* are not read here; those of \['decoder'\] are"
    ):
        mapping_of(shape)
    with pytest.raises(ValueError, match=r"the trainer has no layers for its architecture 'moe_decoder'"):
        validate(plan(), shape)
