"""Memory of a server's GPUs: weights, buffers, and the tokens that the rest of it caches. Light imports only.

Per GPU, each of the pipeline stage that holds most of it, summed over the stage's layers (nemo_ext/models/layer_cost.py):
    weights  the linear layers' bytes / tp, + the embeddings or the output layer, 2 bytes * vocabulary * hidden / tp. With
             fp8 the linear layers take 1 byte and everything else 2, as in NVIDIA's FP8 checkpoints: Llama-3.1-405B is 410
             GB, and 812 in bf16. Biases are left out. Where the checkpoint is here, the size of its files counts.
    buffers  RUNTIME_GIB (CUDA context, NCCL, cuBLAS, CUDA graphs) + the activations of a step of max_num_tokens + logits.
             Assumed, not measured.
    cache    for each token 2 * (key-value heads)/tp, at least one of them, * head size * bytes in a layer with attention;
             with tp above the number of heads each is held several times. For each sequence a layer's state / tp.
"""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from nemo_ext.models.layer_cost import LayerCost
from nemo_ext.models.model import WEIGHTS_DTYPES, Model
from nemo_ext.models.published_shapes import shape_named, shape_of
from nemo_ext.models.shape import ModelShape
from nemo_ext.serving.server import GpuServer

GIB = 2**30
RUNTIME_GIB = 4.0


@dataclass(frozen=True, kw_only=True)
class ServingMemory:
    """Of one GPU of one replica."""

    weights_gib: float
    buffers_gib: float
    kv_bytes_per_token: int
    state_bytes: int
    """Of a sequence of any length; 0 where all layers are attention's or MLPs."""
    kv_gib: float | None
    """What the cache gets; None: the kind of GPU is not known."""

    @property
    def kv_tokens(self) -> int | None:
        """Tokens that the replica caches where sequences have no state: each GPU has its part of every token."""
        if self.kv_gib is None or self.state_bytes:
            return None
        return self.sequences(1)

    def sequence_bytes(self, length: int) -> int:
        """Of `length` tokens."""
        return self.kv_bytes_per_token * length + self.state_bytes

    def sequences(self, length: int) -> int | None:
        """Of `length` tokens that are cached at once."""
        return None if self.kv_gib is None else max(0, int(self.kv_gib * GIB / self.sequence_bytes(length)))


def shape_for(model: Model) -> ModelShape | None:
    """The checkpoint's shape, also of a quantised one, which the trainer would not take; None: not known."""
    try:
        return shape_of(model.hf_path)
    except ValueError:
        return shape_named(model.hf_path)


def serving_memory(shape: ModelShape, model: Model, server: GpuServer, gpu_gib: float | None) -> ServingMemory:
    """Of one replica on GPUs with `gpu_gib` each.

    Raises:
        ValueError: tp_size does not divide the heads, or there are more pp_size than layers; or an unknown weights_dtype.
    """
    _check(shape, model, server)
    stages = _stages(shape, server)
    weights, buffers = _weights(shape, model, server) / GIB, RUNTIME_GIB + _activations(shape, server) / GIB
    element = 1 if server.kv_cache_dtype == "fp8" else 2
    return ServingMemory(
        weights_gib=weights,
        buffers_gib=buffers,
        kv_bytes_per_token=element * max(_held(stage.kv_per_token, shape, server) for stage in stages),
        state_bytes=max(math.ceil(stage.state_bytes / server.tp_size) for stage in stages),
        kv_gib=None if gpu_gib is None else server.kv_gib(gpu_gib, weights, buffers),
    )


def _stages(shape: ModelShape, server: GpuServer) -> list[LayerCost]:
    """Sums over the layers of each stage. Which stages have one more where pp_size does not divide them is assumed."""
    ends = [len(shape.layers) * stage // server.pp_size for stage in range(server.pp_size + 1)]
    return [LayerCost.total(shape.layers[first:end]) for first, end in itertools.pairwise(ends)]


def _check(shape: ModelShape, model: Model, server: GpuServer) -> None:
    if model.weights_dtype not in WEIGHTS_DTYPES:
        raise ValueError(f"model.weights_dtype={model.weights_dtype!r}; it may be one of {WEIGHTS_DTYPES}")
    heads, groups, tp = shape.num_heads, shape.num_kv_heads, server.tp_size
    if heads % tp or (groups % tp and tp % groups):
        raise ValueError(
            f"server.tp_size={tp}: {model.name} has {heads} heads and {groups} key-value heads, which that does not divide"
        )
    if server.pp_size > shape.num_layers:
        raise ValueError(f"server.pp_size={server.pp_size}: {model.name} has {shape.num_layers} layers")


def _held(size: int, shape: ModelShape, server: GpuServer) -> int:
    """What one GPU has of something made of equal parts, one for each key-value head."""
    return size // shape.num_kv_heads * math.ceil(shape.num_kv_heads / server.tp_size)


def _weights(shape: ModelShape, model: Model, server: GpuServer) -> float:
    """Bytes on one GPU."""
    embedding = 2 * shape.vocab_size * shape.hidden_size / server.tp_size
    both = embedding * (1 if shape.tied_embeddings else 2)
    layers = max(_stage_weights(stage, shape, model, server) for stage in _stages(shape, server))
    computed = layers + (both if server.pp_size == 1 else embedding)
    on_disk = checkpoint_bytes(Path(model.hf_path))
    if on_disk is None:
        return computed
    # the files' size, shared out as the arithmetic shares the model out
    per_byte = _whole(shape, model.weights_dtype)
    return on_disk * computed / per_byte


def _stage_weights(stage: LayerCost, shape: ModelShape, model: Model, server: GpuServer) -> float:
    """Bytes of a stage's layers on one GPU."""
    others = stage.matmul_parameters + stage.idle_parameters - stage.kv_parameters
    linear = _held(stage.kv_parameters, shape, server) + others / server.tp_size
    return linear * (1 if model.weights_dtype == "fp8" else 2) + 2 * stage.whole_parameters


def _whole(shape: ModelShape, dtype: str) -> float:
    """Bytes of the whole model."""
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    return 2 * embeddings + (shape.num_parameters - embeddings) * (1 if dtype == "fp8" else 2)


def checkpoint_bytes(folder: Path) -> int | None:
    """Of a checkpoint's tensors; None where it is not here."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return int(json.loads(index.read_text())["metadata"]["total_size"])
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    return sum(sizes) or None


def _activations(shape: ModelShape, server: GpuServer) -> float:
    """Bytes of one step: a few hidden states and one layer's intermediates per token, and fp32 logits per sequence."""
    per_token = 2 * (6 * shape.hidden_size + LayerCost.total(shape.layers).peak_split / server.tp_size)
    return server.max_num_tokens * per_token + server.max_batch_size * 2 * 4 * shape.vocab_size
