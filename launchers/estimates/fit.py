"""Check that training fits the GPUs' memory, and find by trying what would make it fit."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from launchers.planning.plan import PlannedStage
from nemo_ext.machine.gpus import Gpu
from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.plan.memory import GIB, Memory, worst_stage
from nemo_ext.megatron.settings import pack_length
from nemo_ext.models.shape import ModelShape

Changes = dict[str, Any]
"""Key of the stage -> value."""


def why_not_fit(stage: PlannedStage, cfg: Any, shape: ModelShape, gpu: Gpu) -> str | None:
    """None when it fits; else one line: what is needed, by part, and the smallest change that was found to fit."""
    need = worst_stage(shape, cfg)
    if need.gib <= gpu.memory_gib:
        return None
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in need.parts().items())
    text = f"stages.{stage.name} needs {need.gib:.1f} GiB per GPU ({parts}); one {gpu.name} has {gpu.memory_gib:.1f}. "
    found = find_fit(cfg, shape, gpu.memory_gib)
    if found is None:
        text += "No setting tried makes it fit: use GPUs with more memory or a smaller model. "
    else:
        changes, memory = found
        words = " ".join(f"stages.{stage.name}.{key}={_word(value)}" for key, value in changes.items())
        text += f"It needs {memory.gib:.1f} GiB with {words}. "
    return text + "To run it as it is: cluster.check_memory=false"


def find_fit(cfg: Any, shape: ModelShape, memory_gib: float) -> tuple[Changes, Memory] | None:
    """The first change alone that fits; else changes one upon the other until it does, without those not needed."""
    for knob in KNOBS:
        for changes in knob(cfg):
            memory = _memory(cfg, shape, changes)
            if memory and memory.gib <= memory_gib:
                return changes, memory
    chosen: dict[Callable[[Any], Iterator[Changes]], Changes] = {}
    for knob in KNOBS:
        for changes in knob(_changed(cfg, _merged(chosen))):
            before, after = (_memory(cfg, shape, _merged(c)) for c in (chosen, chosen | {knob: changes}))
            if before and after and after.total < before.total:
                chosen[knob] = changes
            if after and after.gib <= memory_gib:
                return _without_needless(cfg, shape, memory_gib, chosen)
    return None


def _without_needless(
    cfg: Any, shape: ModelShape, memory_gib: float, chosen: dict[Callable[[Any], Iterator[Changes]], Changes]
) -> tuple[Changes, Memory]:
    for knob in list(chosen):
        fewer = {other: changes for other, changes in chosen.items() if other is not knob}
        memory = _memory(cfg, shape, _merged(fewer))
        if memory and memory.gib <= memory_gib:
            chosen = fewer
    memory = _memory(cfg, shape, _merged(chosen))
    assert memory is not None, "what was chosen is valid"
    return _merged(chosen), memory


def _memory(cfg: Any, shape: ModelShape, changes: Changes) -> Memory | None:
    """Memory with the settings changed; None when they do not go together."""
    changed = _changed(cfg, changes)
    try:
        validate(changed, shape)
    except ValueError:
        return None
    return worst_stage(shape, changed)


def _merged(chosen: dict[Callable[[Any], Iterator[Changes]], Changes]) -> Changes:
    return {key: value for changes in chosen.values() for key, value in changes.items()}


def _changed(cfg: Any, changes: Changes) -> Any:
    settings = {key: value for key, value in changes.items() if not key.startswith("resources.")}
    if "resources.nodes" in changes:
        settings["resources"] = replace(cfg.resources, nodes=changes["resources.nodes"])
    return replace(cfg, **settings)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Each yields what it would change in a stage's Config, the smallest change first; in order of what they cost. Selective
# recompute is not among them: it drops stored attention scores, and fused attention stores none.


def _distributed_optimizer(cfg: Any) -> Iterator[Changes]:
    if not cfg.use_distributed_optimizer and cfg.data_parallel_size * cfg.context_parallel_size > 1:
        yield {"use_distributed_optimizer": True}


def _sequence_parallel(cfg: Any) -> Iterator[Changes]:
    if not cfg.sequence_parallel and cfg.tensor_model_parallel_size > 1:
        yield {"sequence_parallel": True}


def _shorter_packs(cfg: Any) -> Iterator[Changes]:
    if pack_length(cfg) > cfg.seq_length:
        yield {"pack_length": cfg.seq_length}


def _recompute(cfg: Any) -> Iterator[Changes]:
    method = {} if cfg.recompute_method == "uniform" else {"recompute_method": "uniform"}
    group = {} if cfg.recompute_num_layers == 1 else {"recompute_num_layers": 1}
    changes = {"recompute_granularity": "full"} | method | group
    if any(getattr(cfg, key) != value for key, value in changes.items()):
        yield changes


def _tensor_parallel(cfg: Any) -> Iterator[Changes]:
    for size in (2, 4, 8):
        if cfg.tensor_model_parallel_size < size <= cfg.resources.gpus:
            yield from _at_the_cost_of_replicas(cfg, "tensor_model_parallel_size", size)


def _pipeline_parallel(cfg: Any) -> Iterator[Changes]:
    for size in (2, 4, 8, 16):
        if size > cfg.pipeline_model_parallel_size:
            yield from _at_the_cost_of_replicas(cfg, "pipeline_model_parallel_size", size)


def _at_the_cost_of_replicas(cfg: Any, key: str, size: int) -> Iterator[Changes]:
    replicas, rest = divmod(getattr(cfg, key) * cfg.data_parallel_size, size)
    if replicas and not rest:
        yield {key: size, "data_parallel_size": replicas}


def _more_replicas(cfg: Any) -> Iterator[Changes]:
    if cfg.use_distributed_optimizer:
        for factor in (2, 4, 8):
            yield {
                "data_parallel_size": cfg.data_parallel_size * factor,
                "resources.nodes": cfg.resources.nodes * factor,
            }


def _small_moments(cfg: Any) -> Iterator[Changes]:
    if cfg.use_distributed_optimizer and not (cfg.exp_avg_dtype == cfg.exp_avg_sq_dtype == "bf16"):
        yield {"use_precision_aware_optimizer": True, "exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "bf16"}


KNOBS: tuple[Callable[[Any], Iterator[Changes]], ...] = (
    _distributed_optimizer,
    _sequence_parallel,
    _recompute,
    _shorter_packs,
    _tensor_parallel,
    _pipeline_parallel,
    _more_replicas,
    _small_moments,
)
