"""The plan's estimates against published figures. `python -m tests.bench.bench_plan` prints recipes/MEASURED.md's table.

Published by: the models' repositories; arXiv 2410.01560; the NeMo-RL guide and its CI gates; Megatron-Bridge's
performance-summary-archive.md; Korthikanti et al. 2022; Megatron-LM's log lines ("Theoretical memory footprints", "max
allocated") of Llama-2-7B and of its first 16 layers with PP4 DP2, sequence 4096, micro-batch 1, GBS 128 on eight RTX 4090,
in "NVIDIA 4090 / 4090D" (Infini-AI, 2025-08-01, Megatron-LM core 0.10).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from launchers.estimates.step_time import step_time
from nemo_ext.machine.gpus import gpu_named
from nemo_ext.megatron.plan.activations import layer_bytes_per_token
from nemo_ext.megatron.plan.flops import flops_per_token
from nemo_ext.megatron.plan.memory import bytes_per_parameter, stage_memory, stage_parameters
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.architectures.decoder import attention, mlp
from nemo_ext.models.layer_cost import LayerCost
from nemo_ext.models.published_shapes import SHAPES

MIB = 2**20
EXPERIMENT_ROWS = 13_972_791


@dataclass(frozen=True)
class Figure:
    name: str
    ours: float
    published: float
    unit: str
    source: str

    @property
    def error(self) -> float:
        return self.ours / self.published - 1


def figures() -> Iterator[Figure]:
    yield from parameters()
    yield from steps()
    yield from arithmetic()
    yield from memory()
    yield from time()


def parameters() -> Iterator[Figure]:
    known = {"8B": 8_030_261_248, "70B": 70_553_706_496, "405B": 405_853_388_800}
    for size, count in known.items():
        shape = SHAPES[f"Llama-3.1-{size}"]
        yield Figure(f"parameters, Llama-3.1-{size}", shape.num_parameters, count, "", "its repository")


def steps() -> Iterator[Figure]:
    yield Figure("epochs, 60,000 steps x 512", 60_000 * 512 / EXPERIMENT_ROWS, 2.2, "epochs", "the paper, about")
    yield Figure("steps, 1M rows less 5 %, 512 a step", 1_000_000 * 95 // 100 // 512, 1855, "steps", "NeMo-RL guide")


def arithmetic() -> Iterator[Figure]:
    """TFLOP/s per GPU that the published tokens/s make."""
    runs = [
        ("8B", 8192, 14_451, 744, "25.11"),
        ("8B", 8192, 14_079, 725, "25.09"),
        ("70B", 8192, 1_664, 731, "26.04"),
        ("70B", 4096, 1_638, 710, "26.06"),
        ("405B", 8192, 328, 827, "26.04"),
    ]
    for size, length, rate, tflops, container in runs:
        ours = flops_per_token(SHAPES[f"Llama-3.1-{size}"], length) * rate / 1e12
        name = f"{size}, {rate:,} tokens/s at {length}"
        yield Figure(name, ours, tflops, "TFLOP/s per GPU", f"Megatron-Bridge {container}")


def memory() -> Iterator[Figure]:
    llama = SHAPES["Llama-2-7b"]
    hidden = 12288  # GPT-3's; any will do
    gpt = replace(llama, hidden_size=hidden, ffn_size=4 * hidden, num_heads=96, num_kv_heads=96)
    dropout_masks = LayerCost(kept_whole=hidden)  # two of a byte
    kept = layer_bytes_per_token(attention(gpt) + mlp(gpt, gated=False) + dropout_masks, selective=True)
    yield Figure("GPT layer without scores", kept / hidden, 34, "bytes per s b h", "Korthikanti et al., table 2")
    settings = TrainSettings(pipeline_model_parallel_size=4, data_parallel_size=2)
    static = sum(bytes_per_parameter(settings)) * stage_parameters(llama, settings, 0) / MIB
    yield Figure("Llama-2-7B PP4 DP2, weights to optimizer", static, 20_029.52, "MiB", "Megatron-LM's formula")
    peaks = {32: (30_227.65, 25_079.27, 20_931.01), 16: (15_754.89, 12_680.64, 10_606.51)}
    for layers, measured in peaks.items():
        for stage, mib in enumerate(measured):
            shape = replace(llama, num_layers=layers)
            name = f"Llama-2, {layers} layers, PP4 DP2, stage {stage}"
            yield Figure(name, first_step_mib(shape, settings, stage), mib, "MiB", "measured, first step")
    seventy = SHAPES["Llama-3.1-70B"]
    for chunks, said in ((5, "out of memory in 30 to 60 % of runs"), (10, "fits")):
        settings = TrainSettings(
            tensor_model_parallel_size=4, pipeline_model_parallel_size=4, data_parallel_size=2,
            virtual_pipeline_model_parallel_size=chunks, sequence_parallel=True,
        )  # fmt: skip
        name = f"70B SFT TP4 PP4 VP{chunks} DP2, bf16"
        yield Figure(name, stage_memory(seventy, settings, 0).gib, 79.1, "GiB", f"Megatron-Bridge #3107, fp8: {said}")


def first_step_mib(shape: Any, settings: TrainSettings, stage: int) -> float:
    """Allocated at the peak of the first step, before Adam's moments are, and without what is no tensor."""
    needed = stage_memory(shape, settings, stage)
    replicas = settings.data_parallel_size if settings.use_distributed_optimizer else 1
    moments = 8 / replicas * stage_parameters(shape, settings, stage)
    return (needed.total - needed.other - moments) / MIB


def time() -> Iterator[Figure]:
    gpu = gpu_named("h100")
    for size, length, rate, what in (("8B", 8192, 14_451, "pretraining"), ("70B", 4096, 1_638, "SFT")):
        assert gpu.fp8_tflops and gpu.fp8_mfu, "an H100 has fp8"
        ours = gpu.fp8_tflops * 1e12 * gpu.fp8_mfu / flops_per_token(SHAPES[f"Llama-3.1-{size}"], length)
        yield Figure(f"{size} {what}, fp8, {length}", ours, rate, "tokens/s per GPU", "Megatron-Bridge")
    shape = SHAPES["Llama-3.1-8B"]
    gated = TrainSettings(tensor_model_parallel_size=2, pipeline_model_parallel_size=2, data_parallel_size=2)
    seconds = round(step_time(shape, gated, gpu).seconds, 2)
    yield Figure("8B, 8 GPUs, TP2 PP2, packed", seconds, 6.0, "s a step", "NeMo-RL gate, at most")
    for gpus, hours in ((8, 20.0), (64, 4.0)):
        settings = TrainSettings(tensor_model_parallel_size=4, data_parallel_size=gpus // 4)
        ours = round(1855 * step_time(shape, settings, gpu).seconds / 3600, 2)
        name = f"8B, {gpus} GPUs, TP4, 1,855 steps"
        yield Figure(name, ours, hours, "h", f"NeMo-RL guide{', under' if gpus > 8 else ', about'}; not packed")


def run() -> Iterator[dict[str, Any]]:
    for each in figures():
        line = {"name": each.name, "value": round(each.ours, 4), "unit": each.unit}
        yield line | {"target": each.published, "peer": None, "ratio": None}


def amount(value: float) -> str:
    """At most five digits, but counts whole."""
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.5g}"


def row(each: Figure) -> str:
    error = "exact" if each.ours == each.published else f"{100 * each.error:+.1f} %"
    return f"| {each.name} | {amount(each.ours)} | {amount(each.published)} | {each.unit} | {error} | {each.source} |"


if __name__ == "__main__":
    print("\n".join(row(each) for each in figures()))
