"""Dropout that is the same at every topology, in every packing and after every resume, and none where nothing is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.data.batches import Batches, microbatch
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.layers.attention import dropped_attention
from nemo_ext.megatron.layers.dropout import (
    AFTER_ATTENTION,
    AFTER_MLP,
    EMBEDDING,
    GAMMA,
    dropped,
    kept,
    kept_scores,
    mixed,
    place_of,
    token_keys,
)
from nemo_ext.megatron.layers.dropout_layer import require_dropout
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.megatron.weights.torch_dist import TorchDistReader
from nemo_ext.models.published_shapes import SHAPES
from tests.nemo_ext.megatron.ranks import run_ranks
from tests.nemo_ext.megatron.tiny import save_llama

PROGRAM = ("tests.nemo_ext.megatron.programs", "train_runs")
STEPS, SAVED = 4, 2
pytestmark = pytest.mark.timeout(300)  # several launches of real processes; seconds each on a quiet machine

NONE = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
ONE: dict[str, dict[str, Any]] = {
    "both": {},
    "none": NONE,
    "hidden": {"attention_dropout": 0.0},
    "attention": {"hidden_dropout": 0.0},
    "another seed": {"seed": 5},
    "shorter packs": {"pack_length": 64},
    "recompute all": {"recompute_granularity": "full"},
    "recompute attention": {"recompute_granularity": "selective"},
    "bf16": {"precision": "bf16"},
}
TWO: dict[str, dict[str, Any]] = {
    "tensor": {"tp": 2},
    "sequence": {"tp": 2, "sequence_parallel": True},
    "pipeline": {"pp": 2},
    "virtual pipeline, recompute": {"pp": 2, "vp": 2, "recompute_granularity": "full"},
    "context": {"cp": 2},
    "data": {"dp": 2},
}
FOUR: dict[str, dict[str, Any]] = {
    "sequence, context": {"tp": 2, "sequence_parallel": True, "cp": 2},
    "sequence, virtual pipeline": {"tp": 2, "sequence_parallel": True, "pp": 2, "vp": 2},
    "context, data": {"cp": 2, "dp": 2},
}
INTERRUPTED = ("stopped", "resumed")
"""Two cases of "sequence" in one folder."""


@pytest.fixture(scope="module")
def model(workspace: Path) -> Path:
    save_llama(workspace / "dropout_model", num_hidden_layers=4)
    return workspace / "dropout_model"


@pytest.fixture(scope="module")
def runs(workspace: Path, model: Path, data: Path) -> dict[str, dict[str, Any]]:
    def case(name: str, folder: str, **changes: Any) -> dict[str, Any]:
        settings = {"train_iters": STEPS, "global_batch_size": 32, "pack_length": 128, "lr": 1e-3, "layers": "local"}
        settings |= {"hidden_dropout": 0.2, "attention_dropout": 0.1, "eval_interval": STEPS, "save_interval": 100}
        paths = {"hf": str(model), "data": str(data), "validation": str(data)}
        output = str(workspace / f"dropout {folder}")
        return {**paths, "output": output, "save": name in (*INTERRUPTED, "sequence"), "settings": settings | changes}

    found: dict[str, dict[str, Any]] = {}
    for size, cases in ((1, ONE), (2, TWO), (4, FOUR)):
        arguments = {name: case(name, name, **changes) for name, changes in cases.items()}
        if size == 2:
            arguments["stopped"] = case("stopped", "interrupted", **TWO["sequence"], train_iters=SAVED)
            arguments["resumed"] = case("resumed", "interrupted", **TWO["sequence"])
        results = run_ranks(size, *PROGRAM, {"cases": list(arguments.values())})[0]
        found |= dict(zip(arguments, results, strict=True))
    return found


def losses(run: dict[str, Any], figure: str = "loss") -> list[float]:
    return [line[figure] for line in run["lines"] if "loss" in line]


def validation(run: dict[str, Any]) -> dict[int, float]:
    return {line["step"]: line["validation_loss"] for line in run["lines"] if "validation_loss" in line}


@pytest.mark.parametrize("name", [*TWO, *FOUR, "shorter packs", "recompute all", "recompute attention"])
def test_no_topology_packing_or_recompute_changes_what_is_dropped(runs: dict[str, dict[str, Any]], name: str) -> None:
    for figure in ("loss", "grad_norm"):
        assert losses(runs[name], figure) == pytest.approx(losses(runs["both"], figure), rel=1e-5)
    assert validation(runs[name]) == pytest.approx(validation(runs["both"]), rel=1e-5)


def test_either_dropout_and_the_seed_change_losses(runs: dict[str, dict[str, Any]]) -> None:
    """Else the comparisons above would show nothing."""
    names = ["both", "none", "hidden", "attention", "another seed"]
    first = [losses(runs[name])[0] for name in names[:4]]  # another seed has other samples, too
    assert len({round(loss, 4) for loss in first}) == 4
    assert losses(runs["another seed"]) != pytest.approx(losses(runs["both"]), rel=1e-3)
    assert losses(runs["bf16"]) == pytest.approx(losses(runs["both"]), rel=1e-2)


def test_nothing_is_dropped_in_validation(runs: dict[str, dict[str, Any]]) -> None:
    first = {validation(runs[name])[0] for name in ONE if name not in ("bf16", "shorter packs")}
    assert len(first) == 1, "before a step the model is the same, whatever it is trained with"


def test_a_resumed_run_drops_what_the_uninterrupted_one_does(runs: dict[str, dict[str, Any]], workspace: Path) -> None:
    assert runs["stopped"]["result"]["step"] == SAVED
    assert losses(runs["resumed"]) == losses(runs["sequence"]), "bit for bit"
    folders = [
        workspace / f"dropout {name}" / "checkpoints" / f"step_{STEPS:07d}" for name in ("interrupted", "sequence")
    ]
    ours, theirs = map(TorchDistReader, folders)
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.read(key), theirs.read(key)) for key in ours.tensors)


def test_hidden_dropout_is_where_transformers_layers_say(
    runs: dict[str, dict[str, Any]], data: Path, tmp_path: Path
) -> None:
    """The first step's loss by another implementation, sample by sample: after the embedding, attention and the MLP."""
    reference = save_llama(tmp_path, num_hidden_layers=4)  # the same weights
    samples, seed = PackedData.open(data), TrainSettings().seed
    keys = torch.empty(0)

    def hook(place: int) -> Any:
        def drop(module: Any, inputs: Any, output: Any) -> Any:
            values = output[0] if isinstance(output, tuple) else output
            values = torch.where(kept(keys, place, values.shape[-1], 0.2), values / 0.8, 0.0)
            return (values, *output[1:]) if isinstance(output, tuple) else values

        return drop

    reference.model.embed_tokens.register_forward_hook(hook(EMBEDDING))
    for number, layer in enumerate(reference.model.layers, start=1):
        layer.self_attn.register_forward_hook(hook(place_of(number, AFTER_ATTENTION)))
        layer.mlp.register_forward_hook(hook(place_of(number, AFTER_MLP)))
    total, count = 0.0, 0.0
    for index in Batches(samples, 32, 128, seed).samples(0):
        batch = microbatch(samples, [index], int(samples.lengths[index]))
        keys = token_keys(seed, 0, [index], batch["cu_seqlens"])
        with torch.no_grad():
            logits = reference(batch["tokens"]).logits[0]
        losses_ = F.cross_entropy(logits, batch["labels"][0], reduction="none")
        total += float((losses_ * batch["loss_mask"][0]).sum())
        count += float(batch["loss_mask"].sum())
    assert losses(runs["hidden"])[0] == pytest.approx(total / count, rel=1e-5)


def test_numbers_are_splitmix64s() -> None:
    """Its first three from seed 0, as published."""
    first = mixed(torch.tensor([1, 2, 3]) * GAMMA)
    assert [int(number) % 2**64 for number in first] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_numbers_are_those_of_unsigned_integers() -> None:
    """On whatever vector unit torch works with int64."""
    keys = token_keys(11, 4, [3], packed(300))
    counters = np.arange(257, dtype=np.uint64) * np.uint64(GAMMA % 2**64)
    with np.errstate(over="ignore"):
        start = hashed(keys.numpy().view(np.uint64) + np.uint64(9 * GAMMA % 2**64))
        numbers = hashed(start[:, None] + counters) >> np.uint64(40)
    assert np.array_equal(kept(keys, 9, 257, 0.3).numpy(), numbers >= round(0.3 * 2**24))


def hashed(values: np.ndarray) -> np.ndarray:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def packed(*lengths: int) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def test_a_token_s_key_is_of_its_step_sample_and_position_alone() -> None:
    keys = token_keys(7, 3, [5, 9], packed(4, 6, 2))
    assert torch.equal(token_keys(7, 3, [9], packed(6)), keys[4:10])
    assert torch.equal(token_keys(7, 3, [2, 5], packed(1, 4, 9))[1:5], keys[:4])
    every = [keys, token_keys(8, 3, [5, 9], packed(4, 6, 2)), token_keys(7, 4, [5, 9], packed(4, 6, 2))]
    assert len(torch.cat(every).unique()) == 36
    assert len(token_keys(7, 3, [], packed(8)).unique()) == 8


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_so_many_are_dropped_and_no_two_masks_are_alike(probability: float) -> None:
    keys = token_keys(1, 0, [3], packed(512))
    masks = [
        kept(keys, 0, 512, probability),
        kept(keys, 3, 512, probability),
        kept(token_keys(1, 1, [3], packed(512)), 0, 512, probability),
    ]
    spread = 5 * (probability * (1 - probability) / 512**2) ** 0.5
    for mask in masks:
        assert float(mask.double().mean()) == pytest.approx(1 - probability, abs=spread)
        for axis in (0, 1):
            assert float((mask.double().mean(axis) - (1 - probability)).abs().max()) < 5 * 512**0.5 * spread / 5
    both = [(masks[0] & other).double().mean() for other in (*masks[1:], masks[0].roll(1, 0), masks[0].roll(1, 1))]
    assert [float(share) for share in both] == pytest.approx([(1 - probability) ** 2] * 4, abs=2 * spread)


def test_heads_are_counted_over_the_model() -> None:
    keys = token_keys(1, 0, [0, 1], packed(6, 6)).view(2, 6)
    whole = kept_scores(keys, 5, range(4), 0.5)
    assert whole.shape == (2, 4, 6, 6)
    assert torch.equal(kept_scores(keys, 5, range(2, 4), 0.5), whole[:, 2:])


@given(st.integers(1, 5), st.floats(0, 0.9))
def test_gradients_go_where_values_went(tokens: int, probability: float) -> None:
    keys = token_keys(1, 0, [0], packed(tokens))
    values = torch.randn(tokens, 1, 7, dtype=torch.float64, requires_grad=True)
    result = dropped(values, keys, 4, probability)
    mask = kept(keys, 4, 7, probability)[:, None]
    assert torch.equal(result, torch.where(mask, values / (1 - probability), 0.0))
    (gradient,) = torch.autograd.grad(result.sum(), values)
    assert torch.equal(gradient, mask.double() / (1 - probability))


def test_attention_that_drops_nothing_is_torch_s() -> None:
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    whole = torch.ones(2, 4, 6, 6, dtype=torch.bool)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    assert torch.allclose(dropped_attention(query, key, value, None, whole, 0.0), expected, atol=1e-6)
    only_itself = torch.eye(6, dtype=torch.bool).expand(2, 4, 6, 6)
    first = dropped_attention(query, key, value, None, only_itself, 0.5)[:, :, 0]
    assert torch.allclose(first, 2 * value[:, :, 0].repeat_interleave(2, 1)), "the first attends to itself alone"


@pytest.mark.parametrize("name", ["hidden_dropout", "attention_dropout"])
def test_layers_that_would_ignore_it_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=0\.1: the layers of 'decoder' have none"):
        require_dropout(TrainSettings(**{name: 0.1}), SHAPES["Llama-3.1-8B"], [torch.nn.Linear(1, 1)])
    require_dropout(TrainSettings(), SHAPES["Llama-3.1-8B"], [torch.nn.Linear(1, 1)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_dropout": 1.0}, r"hidden_dropout=1\.0: it must be at least 0, and less than 1"),
        ({"attention_dropout": -0.1}, r"attention_dropout=-0\.1: it must be at least 0"),
        ({"attention_dropout": 0.1}, r"attention_dropout=0\.1 needs layers=local, not auto: fused attention draws"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(TrainSettings(**changes))
    validate(TrainSettings(hidden_dropout=0.1, attention_dropout=0.1, layers="local"))
