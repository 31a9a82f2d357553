"""The time of an optimizer step, from a GPU kind's peak and a stated share of it."""

import math
from dataclasses import dataclass

from nemo_ext.machine.gpus import Gpu
from nemo_ext.megatron.objective import samples_per_step, trained_shape
from nemo_ext.megatron.plan.flops import hardware_flops, model_flops
from nemo_ext.megatron.plan.memory import bytes_per_parameter, stage_parameters
from nemo_ext.megatron.settings import TrainSettings, pack_length, world_size
from nemo_ext.models.shape import ModelShape

TOKENS_PER_SAMPLE = 404.0
"""Assumed where the data is not prepared yet: chat template, problem and solution of an OpenMathInstruct-2 row, whose
solutions have 237 tokens on average. No real row was counted: it is the mean of the lengths in bench_packing.py."""

SQUARES = math.exp(0.55**2)
"""Mean of squared lengths over square of the mean, for those lengths (lognormal, sigma 0.55); attention costs by it."""

PACK_FILL = {"windowed": 0.985, "global": 0.998}
"""Share of a pack that samples fill: best-fit packing of 512 samples at a time, and of many (make bench ONLY=packing)."""


LINK_SHARE = 0.8
"""The share of a link's peak that NCCL reaches with large messages; assumed."""

GPUS_PER_NODE = 8


@dataclass(frozen=True, kw_only=True)
class StepTime:
    packs: int
    micro_batches: int
    """Packs each replica runs, one after another; the last of them may be empty."""
    fill: float
    """Share of the tokens that GPUs work on which are samples' own."""
    bubble: float
    """Share of the step in which a pipeline stage waits."""
    exposed_s: float
    """Time of the gradients' reduction and the weights' gathering that no arithmetic hides."""
    seconds: float
    mfu: float
    """MFU counting the samples' own tokens, everything included."""


def step_time(
    shape: ModelShape, settings: TrainSettings, gpu: Gpu, mfu: float | None = None, tokens: float = TOKENS_PER_SAMPLE
) -> StepTime:
    """One optimizer step, of `tokens` per sample. `mfu` is what full packs without pipeline bubbles reach; None: the
    GPU kind's. Validation, checkpoints and start-up are not in it.

    Raises:
        ValueError: fp8 on a kind that has none.
    """
    shape = trained_shape(settings.objective, shape)
    length, replicas = pack_length(settings), settings.data_parallel_size
    pipeline, chunks = settings.pipeline_model_parallel_size, settings.virtual_pipeline_model_parallel_size or 1
    in_step = samples_per_step(settings.objective, settings.global_batch_size) * tokens
    packs = settings.packs_per_step or math.ceil(in_step / (length * PACK_FILL[settings.packing]))
    micro_batches = math.ceil(packs / replicas)
    if chunks > 1:  # the interleaved schedule takes whole rounds of the pipeline
        micro_batches = math.ceil(micro_batches / pipeline) * pipeline
    ranks = settings.tensor_model_parallel_size * pipeline * settings.context_parallel_size
    peak, share = peak_and_share(gpu, settings)
    work = hardware_flops(shape, settings, length, length * tokens * SQUARES)
    bubble = (pipeline - 1) / chunks / (micro_batches + (pipeline - 1) / chunks)
    each = work / (ranks * peak * (mfu or share))
    exposed = _exposed(shape, settings, gpu, each)
    seconds = micro_batches * each / (1 - bubble) + exposed
    useful = model_flops(shape, round(in_step), in_step * tokens * SQUARES)
    return StepTime(
        packs=packs,
        micro_batches=micro_batches,
        fill=in_step / (micro_batches * replicas * length),
        bubble=bubble,
        exposed_s=exposed,
        seconds=seconds,
        mfu=useful / (seconds * ranks * replicas * peak),
    )


def _exposed(shape: ModelShape, settings: TrainSettings, gpu: Gpu, micro_batch_s: float) -> float:
    """Seconds of data parallel traffic that a step waits for.

    Each replica sends its fp32 gradients once (reduce-scatter) while the last micro-batch's backward pass runs, two
    thirds of it, and receives its weights once while the first one's forward pass runs. Without the distributed
    optimizer the gradients go round twice (all-reduce).
    """
    replicas = settings.data_parallel_size * settings.context_parallel_size
    if replicas == 1:
        return 0.0
    speed = gpu.nvlink_gb_per_s if world_size(settings) <= GPUS_PER_NODE else gpu.network_gb_per_s
    count = stage_parameters(shape, settings, 0) * (replicas - 1) / replicas
    seconds_per_byte = count / (speed * 1e9 * LINK_SHARE)
    weights, gradients, _ = bytes_per_parameter(settings)
    backward, forward = micro_batch_s * 2 / 3, micro_batch_s / 3
    if not settings.use_distributed_optimizer:
        return max(0.0, 2 * gradients * seconds_per_byte - backward)
    return max(0.0, gradients * seconds_per_byte - backward) + max(0.0, weights * seconds_per_byte - forward)


def peak_and_share(gpu: Gpu, settings: TrainSettings) -> tuple[float, float]:
    """FLOP/s of one GPU in the settings' arithmetic, and the assumed share of it."""
    if settings.fp8 is None:
        return gpu.bf16_tflops * 1e12, gpu.mfu
    if gpu.fp8_tflops is None or gpu.fp8_mfu is None:
        raise ValueError(f"fp8={settings.fp8}: {gpu.name} has none; leave it unset, or name another cluster.gpu")
    return gpu.fp8_tflops * 1e12, gpu.fp8_mfu
