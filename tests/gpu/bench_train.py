"""One GPU's tokens per second and MFU on an 8B-shaped stack, against published figures. Not yet run on a GPU.

    python -m tests.gpu.bench_train    needs torch with CUDA, megatron-core, safetensors, omegaconf, orjson, numpy; and,
                                       for its rows, transformer-engine

Llama-3.1-8B's layers, as many as the memory estimate says fit (fewer if that runs out of memory), random weights, BF16
with fp32 Adam, sequence 4096, packed samples of 404 tokens on average as in OpenMathInstruct-2, 8 packs a step. Each
variant runs in a process of its own. Prints a table and one JSON object per row; exits 2, saying so, without a GPU.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nemo_ext.machine.gpus import GPUS, find_gpu
from nemo_ext.megatron.plan.flops import model_flops
from nemo_ext.megatron.plan.memory import worst_stage
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.published_shapes import SHAPES
from nemo_ext.models.shape import ModelShape
from tests.nemo_ext.megatron.ranks import run_ranks

STEPS, WARM_UP, NUM_PACKS, NUM_SAMPLES = 20, 5, 8, 4000
LAYERS = (32, 28, 24, 20, 16, 12, 8, 4, 2)
TARGET = 0.50
SETTINGS: dict[str, Any] = {
    "packing": "global",
    "packs_per_step": NUM_PACKS,
    "train_iters": STEPS,
    "init": "random",
    "tensorboard": False,
}
ENGINE = {"layers": "transformer_engine"}
VARIANTS: dict[str, dict[str, Any]] = {
    "local layers, bf16": {"layers": "local"},
    "local layers, bf16, full recompute": {"layers": "local", "recompute_granularity": "full"},
    "Transformer Engine, bf16": ENGINE,
    "Transformer Engine, fp8 current scaling": ENGINE | {"fp8": "hybrid"},
    "Transformer Engine, fp8 delayed scaling": ENGINE | {"fp8": "hybrid", "fp8_recipe": "delayed"},
}
ANCHORS = (
    ("Megatron-Bridge, Llama3 8B pretraining, 8 H100, fp8, full sequences of 8192", 14_451, 744),
    ("Megatron-Bridge, Llama3 70B SFT, 32 H100, fp8, full sequences of 4096", 1_638, 710),
    ("AutoModel, Llama3 70B LoRA, 8 H100, bf16", 608, 176),
)


def write_data(folder: Path, vocab_size: int, longest: int) -> None:
    """Random tokens; lognormal lengths of 404 on average, the last three quarters of each trained."""
    from nemo_ext.megatron.data.token_folder import PackedDataWriter

    rng = np.random.default_rng(0)
    with PackedDataWriter(folder, {}) as writer:
        for length in rng.lognormal(5.85, 0.55, NUM_SAMPLES).clip(16, longest).astype(int).tolist():
            tokens = rng.integers(0, vocab_size, length).tolist()
            writer.add(tokens, [0] * (length // 4) + [1] * (length - length // 4))


def measure(argument: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: what `_figures` gives, or {"out_of_memory": true}."""
    from nemo_ext.megatron.runtime.parallel import initialize, shutdown

    settings, shape = TrainSettings(**argument["settings"]), ModelShape.from_json(argument["shape"])
    here = initialize(settings)
    try:
        return _figures(settings, shape, here, Path(argument["folder"]))
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    finally:
        shutdown()


def _figures(settings: TrainSettings, shape: ModelShape, here: Any, folder: Path) -> dict[str, Any]:
    """Figures of the steps after the warm-up: tokens/s by the median step, TFLOP/s by the same, peak memory, first and last
    loss (random tokens: the last must not be above the first by much)."""
    from nemo_ext.megatron.data.token_folder import PackedData
    from nemo_ext.megatron.objective import load
    from nemo_ext.megatron.record.metrics import read_metrics
    from nemo_ext.megatron.record.training_log import METRICS, memory_gib
    from nemo_ext.megatron.runtime.preemption import PreemptionSignals
    from nemo_ext.megatron.train import Trainer
    from nemo_ext.records.progress import Progress

    data = PackedData.open(folder / "data")
    (folder / "config.json").write_text(json.dumps(asdict(shape)))  # what a training of random weights starts from
    with tempfile.TemporaryDirectory() as output, PreemptionSignals() as signals:
        trainer = Trainer(settings, load(settings.objective), shape, folder, here, data, None, Path(output))
        for _ in range(settings.train_iters):  # not trainer.run(): no checkpoint of a hundred GB
            trainer.step(Progress(Path(output), "steps"), signals)
        lines = [line for line in read_metrics(Path(output) / METRICS) if "loss" in line]
    seconds = statistics.median(line["seconds"] for line in lines[WARM_UP:])
    tokens = statistics.mean(line["num_tokens"] for line in lines[WARM_UP:])
    squares = int(np.square(data.lengths, dtype=np.int64).sum()) / data.num_tokens * tokens
    return {
        "tokens_per_second": tokens / seconds,
        "tflops": model_flops(shape, int(tokens), squares) / seconds / 1e12,
        "memory_gib": memory_gib(here.device),
        "losses": [lines[0]["loss"], lines[-1]["loss"]],
    }


def fitting_layers(shape: ModelShape, settings: TrainSettings, memory_gib: float) -> list[int]:
    """Numbers of layers to try, most first, from the largest that the estimate says fits."""
    fits = [n for n in LAYERS if worst_stage(replace(shape, num_layers=n), settings).gib < memory_gib]
    return fits or [LAYERS[-1]]


def run_variant(name: str, folder: Path, memory_gib: float) -> dict[str, Any]:
    shape, settings = SHAPES["Llama-3.1-8B"], SETTINGS | VARIANTS[name]
    for layers in fitting_layers(shape, TrainSettings(**settings), memory_gib):
        argument = {
            "folder": str(folder),
            "settings": settings,
            "shape": asdict(replace(shape, num_layers=layers)),
        }
        figures: dict[str, Any] = run_ranks(1, "tests.gpu.bench_train", "measure", argument, timeout_s=600)[0]
        if "out_of_memory" not in figures:
            return {"name": name, "layers": layers, **figures}
    return {"name": name, "layers": 0, "out_of_memory": True}


def show(row: dict[str, Any], peak: float | None) -> str:
    if row.get("out_of_memory"):
        return f"{row['name']:<45} out of memory even with {LAYERS[-1]} layers"
    mfu = f"{100 * row['tflops'] / peak:5.1f} %" if peak else "unknown"
    return (
        f"{row['name']:<45} {row['layers']:>6} {row['tokens_per_second']:>9,.0f} {row['tflops']:>8.1f} "
        f"{mfu:>8} {row['memory_gib']:>6.1f}"
    )


def main() -> int:
    if not torch.cuda.is_available():
        print("error: no CUDA device; this measures one GPU", file=sys.stderr)
        return 2
    from nemo_ext.megatron.layers.kernels import has

    device, kinds = torch.cuda.get_device_properties(0), ", ".join(gpu.name for gpu in GPUS)
    gpu = find_gpu(device.name)
    print(f"{device.name}, torch {torch.__version__}" + ("" if gpu else f" (no peak known; known are {kinds})"))
    print(f"{'variant':<45} {'layers':>6} {'tokens/s':>9} {'TFLOP/s':>8} {'MFU':>8} {'GiB':>6}   target: {TARGET:.0%}")
    with tempfile.TemporaryDirectory() as scratch:
        write_data(Path(scratch) / "data", SHAPES["Llama-3.1-8B"].vocab_size, 4096)
        for name, settings in VARIANTS.items():
            if settings["layers"] == "transformer_engine" and not has("transformer_engine"):
                print(f"{name:<45} transformer-engine is not installed")
                continue
            row = run_variant(name, Path(scratch), device.total_memory / 2**30)
            # of the BF16 peak for fp8 too, as published tables divide
            print(show(row, gpu.bf16_tflops if gpu else None), flush=True)
            print(json.dumps(row | {"gpu": device.name, "torch": torch.__version__}), flush=True)
    for name, tokens, tflops in ANCHORS:
        print(f"{name:<75} {tokens:>7,} tokens/s/GPU {tflops:>5} TFLOP/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
