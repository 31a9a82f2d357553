"""Training on a GPU gives the CPU's losses. Not yet run on a GPU.

python -m pytest tests/gpu    needs torch with CUDA, megatron-core, transformers, safetensors, omegaconf, orjson, numpy,
                              pytest and pytest-timeout; and, for its cases, transformer-engine
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_ext.megatron.checkpoint_folders import complete_steps
from nemo_ext.megatron.layers.kernels import has
from tests.nemo_ext.megatron.ranks import join_ranks, run_ranks, start_ranks
from tests.nemo_ext.megatron.tiny import save_data, save_llama

PROGRAM = ("tests.nemo_ext.megatron.programs", "train_runs")
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

needs_engine = pytest.mark.skipif(not has("transformer_engine"), reason="transformer-engine is not installed")
needs_fp8 = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9),
    reason="a GPU without fp8 (before sm_89)",
)
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    # 64 channels a head: what fused attention kernels take.
    save_llama(folder / "model", hidden_size=256, head_dim=64, intermediate_size=512)
    save_data(folder / "data", num_samples=128, longest=64)
    return folder


def case(place: Path, name: str, **changes: Any) -> dict[str, Any]:
    settings = {"train_iters": 10, "global_batch_size": 16, "lr": 1e-4, "pack_length": 512, "tp": 1, **changes}
    data = str(place / "data")
    paths = {"hf": str(place / "model"), "data": data, "validation": data, "output": str(place / name)}
    return {**paths, "settings": settings}


def losses(run: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in run["lines"] if "loss" in line]


@pytest.fixture(scope="module")
def on_cpu(place: Path) -> list[float]:
    """fp32, in a process that sees no GPU."""
    processes = start_ranks(1, *PROGRAM, {"cases": [case(place, "cpu")]}, env={"CUDA_VISIBLE_DEVICES": ""})
    return losses(join_ranks(processes)[0][0])


def on_gpu(place: Path, name: str, size: int = 1, **changes: Any) -> list[float]:
    return losses(run_ranks(size, *PROGRAM, {"cases": [case(place, name, **changes)]}, timeout_s=500)[0][0])


def test_local_layers_in_fp32(place: Path, on_cpu: list[float]) -> None:
    assert on_gpu(place, "local_fp32", layers="local") == pytest.approx(on_cpu, rel=1e-3)


@pytest.mark.parametrize("changes", [{}, {"recompute_granularity": "full"}, {"recompute_granularity": "selective"}])
def test_local_layers_in_bf16(place: Path, on_cpu: list[float], changes: dict[str, Any]) -> None:
    name = "local_" + str(changes.get("recompute_granularity"))
    assert on_gpu(place, name, layers="local", precision="bf16", **changes) == pytest.approx(on_cpu, rel=0.01)


@needs_engine
@pytest.mark.parametrize("granularity", [None, "full"])
def test_transformer_engines_layers_in_bf16(place: Path, on_cpu: list[float], granularity: str | None) -> None:
    settings = {"layers": "transformer_engine", "precision": "bf16", "recompute_granularity": granularity}
    assert on_gpu(place, f"engine_{granularity}", **settings) == pytest.approx(on_cpu, rel=0.01)


@needs_engine
@needs_fp8
@pytest.mark.parametrize("recipe", ["delayed", "tensorwise"])
def test_fp8_follows(place: Path, on_cpu: list[float], recipe: str) -> None:
    kept = {"num_layers_at_start_in_bf16": 1} if recipe == "tensorwise" else {}
    found = on_gpu(place, f"fp8_{recipe}", precision="bf16", fp8="hybrid", fp8_recipe=recipe, **kept)
    assert found == pytest.approx(on_cpu, rel=0.05)


@needs_engine
def test_bf16_moments_follow(place: Path, on_cpu: list[float]) -> None:
    moments = {"use_precision_aware_optimizer": True, "exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "bf16"}
    assert on_gpu(place, "moments", precision="bf16", **moments) == pytest.approx(on_cpu, rel=0.01)


@pytest.mark.parametrize("in_background", [False, True])
def test_it_resumes_bit_for_bit(place: Path, in_background: bool) -> None:
    settings = {"precision": "bf16", "async_save": in_background, "save_interval": 5}
    whole, name = on_gpu(place, f"whole_{in_background}", **settings), f"two_halves_{in_background}"
    on_gpu(place, name, **settings | {"train_iters": 5})
    assert on_gpu(place, name, **settings) == whole
    assert complete_steps(place / name / "checkpoints") == [5, 10]


@needs_two
@pytest.mark.parametrize("changes", [{"tp": 2, "sequence_parallel": True}, {"pp": 2}, {"cp": 2}, {"dp": 2}])
def test_two_gpus(place: Path, on_cpu: list[float], changes: dict[str, Any]) -> None:
    name = "two_" + "_".join(changes)
    assert on_gpu(place, name, size=2, precision="bf16", **changes) == pytest.approx(on_cpu, rel=0.01)


def test_the_gpu_has_no_cpu_workarounds() -> None:
    """cpu.py must not touch torch where there is CUDA."""
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    from nemo_ext.megatron.runtime import cpu

    cpu.enable()
    assert torch.zeros(1, device="cuda").device.type == "cuda"
