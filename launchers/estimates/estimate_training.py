"""Estimate a training stage: parameters, memory, steps, tokens, hours, disk."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launchers.estimates.fit import why_not_fit
from launchers.estimates.step_time import TOKENS_PER_SAMPLE, StepTime, peak_and_share, step_time
from launchers.planning.plan import PlannedStage
from nemo_ext.machine.gpus import Gpu
from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.objective import samples_per_step
from nemo_ext.megatron.plan.memory import (
    GIB,
    Memory,
    checkpoint_bytes,
    checkpoints_on_disk,
    worst_stage,
)
from nemo_ext.megatron.settings import pack_length
from nemo_ext.models.published_shapes import shape_of

TIGHT = 0.95
"""Share of a GPU's memory above which the estimate's own error decides."""


@dataclass(frozen=True, kw_only=True)
class TrainingEstimate:
    """One training. None: not known."""

    lines: list[tuple[str, str]]
    """(what, the figures): for a person."""
    summary: str
    memory_gib: float | None = None
    hours: float | None = None
    refusal: str | None = None
    warnings: list[str] = field(default_factory=list)


def estimate_training(stage: PlannedStage, cfg: Any, gpu: Gpu | None, mfu: float | None) -> TrainingEstimate:
    """`cfg` is the stage's typed Config. Time and what fits are known for bf16 and fp8 on a known kind of GPU.

    Raises:
        ValueError: settings that the model does not divide into.
    """
    places = stage.resources.nodes * stage.resources.gpus
    samples, per_sample = _data(cfg)
    volume, data = _volume(cfg, samples, per_sample, on_gpus=places > 0)
    shape = shape_of(cfg.model.hf_path)
    if shape is None:
        unknown = f"unknown: {cfg.model.hf_path} is not a folder here, and no model that is known by name"
        return TrainingEstimate(lines=[("model", unknown), data], summary=volume)
    try:
        validate(cfg, shape)
    except ValueError as error:
        raise ValueError(f"stages.{stage.name}: {error}") from error
    count, size = checkpoints_on_disk(cfg), checkpoint_bytes(shape, cfg)
    lines = [
        ("model", f"{cfg.model.name}, {shape.num_parameters:,} parameters"),
        data,
        ("disk", f"{count} checkpoint(s) x {short_bytes(size)} = {short_bytes(count * size)}"),
    ]
    if not places:
        return TrainingEstimate(lines=lines, summary=volume)
    memory, hours = worst_stage(shape, cfg), None
    have = f" of {gpu.memory_gib:.1f}" if gpu else ""
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in memory.parts().items())
    lines.append(("memory", f"{memory.gib:.1f}{have} GiB per GPU of pipeline stage {memory.stage}: {parts}"))
    if stage.host_gib is not None:
        text = f"{stage.host_gib:,.0f} GiB of each node's own while a checkpoint is written (counted, not measured)"
        lines.append(("host memory", text))
    if gpu and cfg.precision == "bf16":
        time = step_time(shape, cfg, gpu, mfu, per_sample)
        hours = cfg.train_iters * time.seconds / 3600
        lines += _time_lines(cfg, gpu, mfu, time, hours, places)
    return TrainingEstimate(
        lines=lines,
        summary=f"{volume}, {short_bytes(count * size)} of checkpoints",
        memory_gib=memory.gib,
        hours=hours,
        refusal=why_not_fit(stage, cfg, shape, gpu) if gpu else None,
        warnings=_warnings(stage, cfg, memory, gpu),
    )


def _volume(cfg: Any, samples: int | None, per_sample: float, on_gpus: bool) -> tuple[str, tuple[str, str]]:
    """Steps and tokens in short, and the line about the data."""
    steps, batch = cfg.train_iters, samples_per_step(cfg.objective, cfg.global_batch_size)
    text = f"{steps:,} steps x {batch:,} = {short(steps * batch)} samples"
    if samples is None and not on_gpus:  # of a size for the CPU, so no OpenMathInstruct-2, whose lengths are assumed
        return f"{steps:,} steps", ("data", text)
    tokens = short(steps * batch * per_sample)
    text += f", {tokens} tokens ({per_sample:.0f} a sample{'' if samples else ', assumed'})"
    if samples:
        text += f"; {steps * batch / samples:.2f} epochs of {samples:,} samples"
    return f"{steps:,} steps, {tokens} tokens", ("data", text)


def _time_lines(
    cfg: Any, gpu: Gpu, mfu: float | None, time: StepTime, hours: float, places: int
) -> list[tuple[str, str]]:
    share = mfu or peak_and_share(gpu, cfg)[1]
    waits = f", {time.bubble:.0%} pipeline bubble" if time.bubble else ""
    waits += f", {time.exposed_s:.2f} s of gradients and weights on the network" if time.exposed_s >= 0.005 else ""
    return [
        (
            "step",
            f"{time.packs} packs of {pack_length(cfg):,} tokens over {cfg.data_parallel_size} replicas: "
            f"{time.micro_batches} each, {time.fill:.0%} filled{waits}",
        ),
        (
            "time",
            f"{time.seconds:.2f} s a step, {number(hours)} h, {number(hours * places)} GPU-hours, at {share:.0%} MFU on "
            f"full packs ({'cluster.mfu' if mfu else f'assumed for {gpu.name}'}), {time.mfu:.0%} overall",
        ),
    ]


def _warnings(stage: PlannedStage, cfg: Any, memory: Memory, gpu: Gpu | None) -> list[str]:
    found = []
    if cfg.tensor_model_parallel_size > stage.resources.gpus:
        found.append(
            f"stages.{stage.name}.tensor_model_parallel_size={cfg.tensor_model_parallel_size} spans nodes of "
            f"{stage.resources.gpus} GPUs: every layer will wait for the network between them"
        )
    if gpu and TIGHT * gpu.memory_gib < memory.gib <= gpu.memory_gib:
        found.append(
            f"stages.{stage.name} needs {memory.gib:.1f} of {gpu.memory_gib:.1f} GiB: it may fit and may not; "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in cluster.env saves fragmentation"
        )
    return found


def _data(cfg: Any) -> tuple[int | None, float]:
    """Samples of the prepared data and their mean length; (None, assumed) while it is not there."""
    path = Path(cfg.data) / "train" / "data.json"
    if not path.is_file():
        return None, TOKENS_PER_SAMPLE
    facts = json.loads(path.read_text())
    return facts["num_samples"], facts["num_tokens"] / max(1, facts["num_samples"])


def number(value: float) -> str:
    """`1,929`, `7.5`, `0.13`."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def short(number: float) -> str:
    """`30.7 M`, `12.4 B`."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def short_bytes(number: float) -> str:
    """`112 GB`, `6.91 TB` (decimal, as disks are sold)."""
    for size, unit in ((1e12, "TB"), (1e9, "GB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e6:.3g} MB"
