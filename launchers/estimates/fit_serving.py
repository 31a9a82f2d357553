"""Check that a stage's servers fit their GPUs: the sequences they hold at once, and what would make them fit."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from launchers.planning.plan import PlannedStage
from nemo_ext.machine.gpus import Gpu
from nemo_ext.models.model import Model
from nemo_ext.serving.memory import ServingMemory, serving_memory, shape_for
from nemo_ext.serving.server import GpuServer, load
from recipes.work import Asking

PROMPT_TOKENS = 1500
"""Assumed of a prompt: the longest few-shot prompt here (conf/few_shot/math_text_detailed.yaml) with its problem."""
MIN_PROMPT_TOKENS = 256

Changes = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ServingFit:
    """How the server of one stage fits its GPUs."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    memory: str = ""
    """GiB per GPU without the cache, and what the GPU has."""
    refusal: str | None = None
    warnings: list[str] = field(default_factory=list)


def fit_serving(stage: PlannedStage, gpu: Gpu | None) -> ServingFit:
    """The stage's servers and models, each pair once.

    Raises:
        ValueError: sizes that the model does not divide into.
    """
    if not any(process.service for process in stage.tasks[0].processes):
        return ServingFit(warnings=_idle(stage))
    found = [_fit(stage, *each, gpu) for each in _distinct(stage)]
    return ServingFit(
        lines=list(dict.fromkeys(line for each in found for line in each.lines)),
        memory=max((each.memory for each in found), default=""),
        refusal=next((each.refusal for each in found if each.refusal), None),
        warnings=list(dict.fromkeys(warning for each in found for warning in each.warnings)),
    )


def _idle(stage: PlannedStage) -> list[str]:
    if not stage.resources.gpus:
        return []
    return [
        f"stages.{stage.name}: no server is started here, so its {stage.resources.gpus} GPUs per node would be idle; "
        f"stages.{stage.name}.resources.gpus=0 asks for none"
    ]


def _distinct(stage: PlannedStage) -> Iterator[tuple[GpuServer, Model, int]]:
    """Server, model and max_tokens (0: not known) of the tasks, those that differ."""
    seen = set()
    for task in stage.differing_tasks:
        content = task.content
        max_tokens = task.work.max_tokens if isinstance(task.work, Asking) else 0
        # a variant's own name and path say nothing of its shape; the first task's do
        key = json.dumps([content["server"], content["model"]["weights_dtype"], max_tokens], sort_keys=True)
        server = load(content["server"]) if key not in seen else None
        seen.add(key)
        if isinstance(server, GpuServer):
            yield server, Model(**content["model"]), max_tokens


def _fit(stage: PlannedStage, server: GpuServer, model: Model, max_tokens: int, gpu: Gpu | None) -> ServingFit:
    shape = shape_for(model)
    longest = server.sequence_length(model)
    short = [
        f"stages.{stage.name}.sampling.max_tokens={max_tokens} leaves {longest - max_tokens:,} of the {longest:,} tokens of "
        "a sequence for the prompt; raise server.max_seq_len, or lower max_tokens"
    ]
    warnings = short if longest - max_tokens < MIN_PROMPT_TOKENS else []
    if shape is None:
        unknown = f"unknown: {model.hf_path} is not a folder here, and no model that is known by name"
        return ServingFit(lines=[("memory", unknown)], warnings=warnings)
    try:
        memory = serving_memory(shape, model, server, gpu.memory_gib if gpu else None)
    except ValueError as error:
        raise ValueError(f"stages.{stage.name}: {error}") from error
    length = min(PROMPT_TOKENS + max_tokens, longest) if max_tokens else longest
    taken = memory.weights_gib + memory.buffers_gib
    if gpu is None:
        return ServingFit(lines=[("memory", _parts(memory, server))], memory=f"{taken:.1f}", warnings=warnings)
    fits, refusal = memory.sequences(longest) or 0, None
    if not fits:
        refusal = _refusal(stage, server, model, memory, longest, gpu)
    elif max_tokens and (held := memory.sequences(length) or 0) < server.max_batch_size:
        warnings = [*warnings, _crowded(stage, server, held, length)]
    return ServingFit(
        lines=[("memory", _parts(memory, server)), ("cache", _cache(memory, server, length, longest))],
        memory=f"{taken:.1f}/{gpu.memory_gib:.1f}",
        refusal=refusal,
        warnings=warnings,
    )


def _parts(memory: ServingMemory, server: GpuServer) -> str:
    state = f" and {memory.state_bytes:,} per sequence" if memory.state_bytes else ""
    return (
        f"{memory.weights_gib:.1f} GiB of weights and {memory.buffers_gib:.1f} of buffers per GPU (TP {server.tp_size}, "
        f"PP {server.pp_size}); {memory.kv_bytes_per_token:,} bytes of cache per token{state}"
    )


def _cache(memory: ServingMemory, server: GpuServer, length: int, longest: int) -> str:
    if not memory.sequences(1):
        return "nothing is left for it"
    tokens = "" if memory.kv_tokens is None else f"{memory.kv_tokens:,} tokens, "
    text = f"{memory.kv_gib:.1f} GiB per GPU: {tokens}{memory.sequences(longest):,} sequences of {longest:,}"
    if length != longest:
        text += f", {memory.sequences(length):,} of {length:,} (prompts of {PROMPT_TOKENS:,}, assumed)"
    return f"{text}; max_batch_size {server.max_batch_size}"


def _crowded(stage: PlannedStage, server: GpuServer, held: int, length: int) -> str:
    return (
        f"stages.{stage.name}: a server holds {held} sequences of {length:,} tokens and not server.max_batch_size="
        f"{server.max_batch_size}, so requests wait inside it; server.max_batch_size={max(1, held // 8 * 8 or held)} says so"
    )


def _refusal(
    stage: PlannedStage, server: GpuServer, model: Model, memory: ServingMemory, longest: int, gpu: Gpu
) -> str:
    needed = memory.sequence_bytes(longest) / 2**30
    text = (
        f"stages.{stage.name}: {model.name} in {model.weights_dtype} takes {memory.weights_gib:.1f} GiB of weights and "
        f"{memory.buffers_gib:.1f} of buffers per GPU, and one sequence of {longest:,} tokens {needed:.1f} of cache; one "
        f"{gpu.name} has {gpu.memory_gib:.1f} (the cache gets {max(0.0, memory.kv_gib or 0.0):.1f}). "
    )
    found = find_fit(server, model, gpu.memory_gib)
    if found is None:
        text += "Nothing tried makes it fit: use GPUs with more memory, or a smaller or fp8 model. "
    else:
        text += f"It fits with {' '.join(_words(stage, server, found))}. "
        if model.weights_dtype != "fp8":
            text += "So may an fp8 checkpoint (model.weights_dtype=fp8). "
    return text + "To run it as it is: cluster.check_memory=false"


def _words(stage: PlannedStage, server: GpuServer, fitting: GpuServer) -> list[str]:
    """What to add to the command line."""
    keys = ("max_seq_len", "kv_cache_dtype", "tp_size", "pp_size", "nodes")
    words = [f"server.{key}={getattr(fitting, key)}" for key in keys if getattr(fitting, key) != getattr(server, key)]
    if fitting.gpus != server.gpus:
        place = f"stages.{stage.name}.resources"
        words += [f"{place}.nodes={fitting.nodes * server.replicas}", f"{place}.gpus={fitting.gpus_per_node}"]
    return words


def find_fit(server: GpuServer, model: Model, gpu_gib: float) -> GpuServer | None:
    """The server with the smallest change that was found to fit."""
    shape = shape_for(model)
    assert shape is not None, "asked of a model whose shape is known"
    for changes in _changes(server, model):
        try:
            changed = replace(server, **changes)
            memory = serving_memory(shape, model, changed, gpu_gib)
        except ValueError:  # the model does not divide into these, or this server takes no several nodes
            continue
        if memory.sequences(changed.sequence_length(model)):
            return changed
    return None


def _changes(server: GpuServer, model: Model) -> Iterator[Changes]:
    longest = server.sequence_length(model)
    for length in (32768, 16384, 8192, 4096):
        if length < longest:
            yield {"max_seq_len": length}
    if server.kv_cache_dtype != "fp8" and model.weights_dtype == "fp8":
        yield {"kv_cache_dtype": "fp8"}
    for gpus in (2, 4, 8, 16, 32):
        nodes = math.ceil(gpus / 8)
        if gpus > server.gpus:
            yield {"tp_size": min(gpus, 8), "pp_size": nodes, "nodes": nodes}
