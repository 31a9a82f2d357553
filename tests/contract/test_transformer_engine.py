"""Training over Transformer Engine's own Python gives the local layers' losses.

Its kernels are stand-ins in torch (engine.py): this shows that names, shapes, dtypes, sharding and checkpoints of that
path fit, not what the kernels compute, nor NCCL, streams, memory or speed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nemo_ext.megatron.weights.export import export_hf
from nemo_ext.megatron.weights.hf import SINGLE
from tests.contract.wheels import missing
from tests.nemo_ext.megatron.ranks import join_ranks, run_ranks, start_ranks
from tests.nemo_ext.megatron.tiny import save_data, save_llama

WHY = missing("transformer_engine")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.skipif(bool(WHY), reason=WHY)]

BF16 = {"precision": "bf16"}
FP8 = {**BF16, "fp8": "hybrid", "fp8_recipe": "tensorwise", "num_layers_at_start_in_bf16": 1}
MOMENTS = {**BF16, "use_precision_aware_optimizer": True, "exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "bf16"}
TP2 = {"tp": 2, "sequence_parallel": True}
VP2 = {"pp": 2, "vp": 2, "pack_length": 96}
"""A pack holds two or three samples: six micro-batches a step and more."""
Case = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A training of the models and data here; `output` names its folder, `model` its first weights."""
    place = tmp_path_factory.mktemp("contract")
    for name, layers in (("model", 2), ("deep", 4)):  # 64 channels a head: what fused attention takes
        save_llama(place / name, hidden_size=256, head_dim=64, intermediate_size=512, num_hidden_layers=layers)
    save_data(place / "data", num_samples=128, longest=64)

    def made(output: str, model: str = "model", save: bool = False, **changes: Any) -> dict[str, Any]:
        settings = {"train_iters": 10, "global_batch_size": 16, "lr": 1e-4, "pack_length": 512, "tp": 1, **changes}
        paths = {"hf": str(place / model), "data": str(place / "data"), "output": str(place / output)}
        return {**paths, "settings": settings, "save": save}

    return made


def losses(run: dict[str, Any]) -> list[float]:
    assert "lines" in run, run
    return [line["loss"] for line in run["lines"] if "loss" in line]


@pytest.fixture(scope="module")
def local(case: Case) -> dict[str, list[float]]:
    """Losses of the local layers in fp32, on one rank."""
    cases = {
        "half": case("local", save=True, train_iters=5, save_interval=5),
        "whole": case("local_whole", save=True),
        "deep": case("local_deep", model="deep", pack_length=VP2["pack_length"]),
    }
    program = ("tests.nemo_ext.megatron.programs", "train_runs")
    runs = run_ranks(1, *program, {"cases": list(cases.values())})[0]
    return dict(zip(cases, map(losses, runs), strict=True))


def engine(size: int, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """{name: {"run", "calls"}} of trainings over Transformer Engine, one after another on `size` ranks."""
    program = ("tests.contract.programs", "train_runs")
    found = join_ranks(start_ranks(size, *program, {"cases": list(cases.values())}, fresh=True))[0]
    assert found["adam"].startswith("transformer_engine."), "the optimizer is Transformer Engine's too"
    pairs = zip(found["runs"], found["calls"], strict=True)
    return {name: {"run": run, "calls": calls} for name, (run, calls) in zip(cases, pairs, strict=True)}


@pytest.fixture(scope="module")
def one_rank(case: Case, local: dict[str, list[float]]) -> dict[str, Any]:
    halves: dict[str, dict[str, Any]] = {}
    for name, settings in (("bf16", BF16), ("moments", MOMENTS), ("fp8", FP8)):
        kept = {**settings, "save_interval": 5, "save": True}
        halves[name] = case(name, **kept)
        halves[f"{name}_first"] = case(f"{name}_halves", **kept | {"train_iters": 5})
        halves[f"{name}_second"] = case(f"{name}_halves", **kept)
    exported = {"exported": case("exported", save=True)}
    return engine(1, {**halves, **exported, "of_local_layers": case("local", save=True)})


@pytest.fixture(scope="module")
def two_ranks(case: Case) -> dict[str, Any]:
    cases = {
        "free": case("free", **BF16, **TP2, deterministic_mode=False),  # first: the mode is set for a whole process
        "fp32": case("fp32_tp2", **TP2),
        "fp8": case("fp8_tp2", **FP8, **TP2),
        "virtual": case("virtual", model="deep", **VP2),
    }
    return engine(2, cases)


def test_fp32_on_two_tensor_parallel_ranks_is_the_same(local: dict[str, Any], two_ranks: dict[str, Any]) -> None:
    assert losses(two_ranks["fp32"]["run"]) == pytest.approx(local["whole"], rel=1e-5)


def test_a_virtual_pipeline_is_the_same(local: dict[str, Any], two_ranks: dict[str, Any]) -> None:
    run = two_ranks["virtual"]["run"]
    assert losses(run) == pytest.approx(local["deep"], rel=1e-5)
    tokens = [line["num_tokens"] for line in run["lines"] if "loss" in line]
    assert min(tokens) > 4 * VP2["pack_length"], "more than four micro-batches a step"


def test_bf16_with_fused_attention_follows(local: dict[str, Any], one_rank: dict[str, Any]) -> None:
    assert losses(one_rank["bf16"]["run"]) == pytest.approx(local["whole"], rel=0.01)
    calls = one_rank["bf16"]["calls"]
    assert calls["fused_attn_fwd"] >= 2 * 10 and calls["fused_rope_forward"] and calls["multi_tensor_adam"]


def test_fp8_follows(local: dict[str, Any], two_ranks: dict[str, Any]) -> None:
    assert losses(two_ranks["fp8"]["run"]) == pytest.approx(local["whole"], rel=0.05)
    calls = two_ranks["fp8"]["calls"]
    assert calls["generic_gemm in fp8"] == calls["generic_gemm"], "one layer of two stays in bf16"


def test_bf16_moments_follow(local: dict[str, Any], one_rank: dict[str, Any]) -> None:
    assert losses(one_rank["moments"]["run"]) == pytest.approx(local["whole"], rel=0.01)


@pytest.mark.parametrize("name", ["bf16", "moments", "fp8"])
def test_it_resumes_bit_for_bit(one_rank: dict[str, Any], name: str) -> None:
    whole, halves = losses(one_rank[name]["run"]), losses(one_rank[f"{name}_second"]["run"])
    assert len(losses(one_rank[f"{name}_first"]["run"])) == 5
    assert halves == whole


def test_deterministic_mode_reaches_the_kernel(one_rank: dict[str, Any], two_ranks: dict[str, Any]) -> None:
    calls = one_rank["bf16"]["calls"]
    assert calls["deterministic backward"] == calls["fused_attn_bwd"] > 0
    free = two_ranks["free"]["calls"]
    assert free["deterministic backward"] == 0 < free["fused_attn_bwd"]


def test_a_checkpoint_of_local_layers_is_named_as_such(one_rank: dict[str, Any]) -> None:
    refused = one_rank["of_local_layers"]["run"]["refused"]
    assert "was saved with other layers" in refused and "layers=local" in refused


def test_its_checkpoint_is_exported(case: Case, one_rank: dict[str, Any], tmp_path: Path) -> None:
    """The weights of ten steps, as far from the first ones as those of the local layers are, and no further."""
    first = load_file(Path(case("exported")["hf"]) / SINGLE)
    ours, theirs = (exported(case(name), tmp_path / name) for name in ("local_whole", "exported"))
    assert set(theirs) == set(ours) == set(first)
    assert all(float((theirs[name] - first[name]).abs().max()) > 1e-4 for name in first), "trained"
    assert max(float((theirs[name] - ours[name]).abs().max()) for name in first) < 5e-4


def exported(made: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = Path(made["output"]) / "checkpoints" / "step_0000010"
    return load_file(export_hf(checkpoint, Path(made["hf"]), folder, "fp32") / SINGLE)
