"""GPU memory and disk space of a training. Light imports only: the launcher plans with it.

Counted for the layers that run on GPUs: Transformer Engine's, fused attention that stores no scores, fused SwiGLU, no
dropout. Everything is per GPU of the pipeline stage that needs most. Checked against Korthikanti et al. 2022
(arXiv 2205.05198), Megatron-LM's theoretical_memory_usage.py and logs of real runs in
tests/nemo_ext/megatron_plan/test_memory_estimate.py; recipes/MEASURED.md has the errors.
"""

from dataclasses import dataclass

from nemo_ext.megatron.checkpoint_folders import expendable
from nemo_ext.megatron.objective import trained_shape
from nemo_ext.megatron.plan.flops import layer_matmul_parameters
from nemo_ext.megatron.settings import ForwardSettings, TrainSettings, pack_length, padded_vocab, saves_at
from nemo_ext.models.head import Regression
from nemo_ext.models.shape import ModelShape

GIB = 2**30

CONTEXT_BYTES = 2 * GIB
"""CUDA context, cuBLAS and Transformer Engine workspaces, temporaries of the optimizer. A GPT-2 XL run of Megatron-LM on
one H100 shows 2.8 GiB in nvidia-smi beyond what is counted here; Megatron-Bridge's Llama 3 70B fine-tuning with TP4 PP4
VP10 passes on 79.1 GiB (its pull request 3107), which leaves it at most 2."""

COMMUNICATOR_BYTES = GIB // 2
"""NCCL's buffers of one process group: nvidia-smi shows 0.47 GiB more per GPU when that run goes from 1 GPU to 4."""

FRAGMENTATION = 0.03
"""Reserved by the allocator beyond what was allocated: 2.8, 3.2 and 2.9 % on three stages of a Llama-2-7B run (PP4)."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU of pipeline stage `stage`."""

    stage: int
    weights: float
    gradients: float
    optimizer: float
    """fp32 weights and Adam's two moments."""
    activations: float
    """Kept from forward to backward, of all micro-batches in flight."""
    temporary: float
    """The larger of the logits with their gradient and of what one layer's backward pass holds."""
    other: float
    """CUDA, NCCL, fragmentation."""

    @property
    def total(self) -> float:
        return sum(self.parts().values())

    @property
    def gib(self) -> float:
        return self.total / GIB

    def parts(self) -> dict[str, float]:
        names = ("weights", "gradients", "optimizer", "activations", "temporary", "other")
        return {name: getattr(self, name) for name in names}


def worst_stage(shape: ModelShape, settings: TrainSettings) -> Memory:
    """The stage that needs most: usually the first, whose activations wait longest, or the last, which has the logits."""
    stages = range(settings.pipeline_model_parallel_size)
    return max((stage_memory(shape, settings, stage) for stage in stages), key=lambda memory: memory.total)


def stage_memory(shape: ModelShape, settings: TrainSettings, stage: int) -> Memory:
    """Memory of pipeline stage `stage`, counted from 0, at the end of a step's last forward pass."""
    count = stage_parameters(shape, settings, stage)
    weights, gradients, optimizer = bytes_per_parameter(settings)
    counted = Memory(
        stage=stage,
        weights=weights * count + _fp8_copies(shape, settings),
        gradients=gradients * count,
        optimizer=optimizer * count,
        activations=_activations(shape, settings, stage),
        temporary=_temporary(shape, settings, stage),
        other=0.0,
    )
    other = CONTEXT_BYTES + COMMUNICATOR_BYTES * _communicators(settings) + FRAGMENTATION * counted.total
    return Memory(**counted.parts() | {"other": other}, stage=stage)


def stage_parameters(shape: ModelShape, settings: TrainSettings, stage: int) -> int:
    """Parameters on one GPU of a stage: matrices are split over TP, norms and a regression head are not; the vocabulary
    is padded."""
    shape = trained_shape(settings.objective, shape)
    tensor, pipeline = settings.tensor_model_parallel_size, settings.pipeline_model_parallel_size
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    matrices = layer_matmul_parameters(shape) + shape.qkv_bias * (queries + 2 * keys)
    total = shape.num_layers // pipeline * (matrices // tensor + 2 * shape.hidden_size)
    vocabulary = padded_vocab(settings, shape) // tensor * shape.hidden_size
    first, last = stage == 0, stage == pipeline - 1
    if first:
        total += vocabulary
    if last:
        total += shape.hidden_size + _head_parameters(shape, vocabulary, first)
    return total


def _head_parameters(shape: ModelShape, vocabulary: int, with_embedding: bool) -> int:
    """Of the last stage's head; `vocabulary` are those of an output layer."""
    if isinstance(shape.head, Regression):
        return shape.head.outputs * shape.hidden_size
    # a tied output layer on another stage than the embedding has a copy of its own
    return 0 if shape.tied_embeddings and with_embedding else vocabulary


def bytes_per_parameter(settings: TrainSettings) -> tuple[float, float, float]:
    """(weights, gradients, optimizer) bytes for each parameter on the GPU.

    bf16: 2 + 4 + 12, gradients being fp32 and the optimizer holding fp32 weights and two moments: Megatron's 18, or
    6 + 12 / replicas with the distributed optimizer, which splits its part over data and context parallel ranks. fp32
    has no second copy of the weights: 4 + 4 + 8.
    """
    moments = sum(2 if kept == "bf16" else 4 for kept in (settings.exp_avg_dtype, settings.exp_avg_sq_dtype))
    mixed = settings.precision == "bf16"
    optimizer = float(moments + (4 if mixed else 0))
    if settings.use_distributed_optimizer:
        optimizer /= settings.data_parallel_size * settings.context_parallel_size
    return (2.0 if mixed else 4.0), 4.0, optimizer


def layer_bytes_per_token(
    *,
    hidden: int,
    queries: int,
    keys: int,
    ffn: int,
    heads: int,
    tensor: int = 1,
    sequence_parallel: bool = False,
    gated: bool = True,
    dropout: bool = False,
    element: int = 2,
) -> float:
    """What one layer keeps per token for its backward pass, bytes on one of `tensor` GPUs.

    Kept whole without sequence parallelism: the input and output of both norms, and a 1-byte mask per dropout. Split
    over the tensor parallel GPUs: rotated queries and keys, values, attention's result and its softmax statistics (fp32
    per head), the first projection's result (gate and up when `gated`) and the activation's. `queries`, `keys`: heads x
    head_dim. An ungated layer with queries = keys = hidden and ffn = 4 hidden has Korthikanti et al.'s 34 x hidden
    (without sequence parallelism 10 + 24 / tensor, with it 34 / tensor), less their stored attention scores.
    """
    whole = 4 * hidden * element + (2 * hidden if dropout else 0)
    split = element * (2 * queries + 2 * keys + (3 if gated else 2) * ffn) + 4 * heads
    return (whole + split) / tensor if sequence_parallel else whole + split / tensor


def _layer(shape: ModelShape, settings: TrainSettings) -> float:
    """layer_bytes_per_token of a model under these settings."""
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    tensor, context = settings.tensor_model_parallel_size, settings.context_parallel_size
    kept = layer_bytes_per_token(
        hidden=shape.hidden_size,
        queries=queries,
        keys=keys,
        ffn=shape.ffn_size,
        heads=0 if settings.recompute_granularity == "selective" else shape.num_heads,
        tensor=tensor,
        sequence_parallel=settings.sequence_parallel,
        element=_element(settings),
    )
    if context == 1:
        return kept
    # Context parallelism runs attention.py's: one more copy of the result; and where a rank's heads are not whole
    # groups (context.gather_groups), keys and values for each of its query heads.
    copies = queries
    if shape.num_heads // tensor // context % (shape.num_heads // shape.num_kv_heads):
        copies += 2 * (queries - keys)
    return kept + _element(settings) * copies / tensor


def _activations(shape: ModelShape, settings: TrainSettings, stage: int) -> float:
    pipeline, chunks = settings.pipeline_model_parallel_size, settings.virtual_pipeline_model_parallel_size or 1
    layers = shape.num_layers // (pipeline * chunks)
    tokens = local_tokens(settings)
    hidden = _element(settings) * shape.hidden_size * tokens
    if settings.sequence_parallel:
        hidden /= settings.tensor_model_parallel_size
    layer, group = _layer(shape, settings) * tokens, min(layers, settings.recompute_num_layers)
    if settings.recompute_granularity != "full":
        per_chunk, recomputed = layers * layer, 0.0
    elif settings.recompute_method == "uniform":
        per_chunk, recomputed = -(-layers // group) * hidden, group * layer
    else:
        per_chunk, recomputed = group * hidden + (layers - group) * layer, layer
    final_norm = 2 * hidden if stage == pipeline - 1 else 0.0
    return chunks_in_flight(settings, stage) * per_chunk + recomputed + final_norm


def chunks_in_flight(settings: TrainSettings, stage: int) -> int:
    """Model chunks of a stage whose activations are held at once by Megatron's 1F1B schedule: micro-batches, without
    virtual stages. Enough micro-batches to fill the pipeline are assumed."""
    pipeline, chunks = settings.pipeline_model_parallel_size, settings.virtual_pipeline_model_parallel_size or 1
    if chunks == 1:
        return pipeline - stage
    return 2 * (pipeline - stage - 1) + (chunks - 1) * pipeline + 1


def _temporary(shape: ModelShape, settings: TrainSettings, stage: int) -> float:
    tokens, tensor, element = local_tokens(settings), settings.tensor_model_parallel_size, _element(settings)
    queries = shape.num_heads * shape.head_dim
    # gradients of the activation, of both projections' inputs and of attention, gathered where they are split
    backward = tokens * element * (4 * shape.hidden_size + (3 * shape.ffn_size + 2 * queries) / tensor)
    if stage < settings.pipeline_model_parallel_size - 1:
        return backward
    head = trained_shape(settings.objective, shape).head
    if isinstance(head, Regression):  # its outputs in the model's dtype and in fp32, and the input it has gathered
        gathered = 2 * element * shape.hidden_size if settings.sequence_parallel else 0
        return max(backward, tokens * (gathered + (element + 4) * head.outputs))
    # Logits, their copy with pad rows masked, and the fp32 one that becomes softmax and gradient in place. Of every
    # token: the trainer leaves out what is not trained, but a pack may be nearly all trained.
    padded = padded_vocab(settings, shape)
    each = element * (2 if padded > shape.vocab_size else 1) + 4
    return max(backward, tokens * each * padded / tensor)


def local_tokens(settings: ForwardSettings) -> float:
    """Tokens of a micro-batch on one context parallel rank."""
    return pack_length(settings) / settings.context_parallel_size


def _element(settings: ForwardSettings) -> int:
    return 2 if settings.precision == "bf16" else 4


def _fp8_copies(shape: ModelShape, settings: TrainSettings) -> float:
    """Transformer Engine keeps each layer matrix in fp8 too, plain and transposed, beside the bf16 one. Activations are
    counted in bf16 whatever fp8 says: an upper bound."""
    if settings.fp8 is None:
        return 0.0
    layers = shape.num_layers // settings.pipeline_model_parallel_size
    return 2.0 * layers * layer_matmul_parameters(shape) / settings.tensor_model_parallel_size


def _communicators(settings: TrainSettings) -> int:
    sizes = (
        settings.tensor_model_parallel_size,
        settings.pipeline_model_parallel_size,
        settings.context_parallel_size,
        settings.data_parallel_size,
    )
    return sum(size > 1 for size in sizes)


def checkpoint_bytes(shape: ModelShape, settings: TrainSettings) -> int:
    """One checkpoint: weights, and in fp32 the weights again and Adam's two moments."""
    return trained_shape(settings.objective, shape).num_parameters * (_element(settings) + 12)


def checkpoints_on_disk(settings: TrainSettings) -> int:
    """Most complete checkpoints there are at once."""
    kept: list[int] = []
    most = 0
    for step in (step for step in range(1, settings.train_iters + 1) if saves_at(settings, step)):
        kept.append(step)
        most = max(most, len(kept))
        gone = set(expendable(kept, settings.keep_checkpoints, settings.keep_interval))
        kept = [step for step in kept if step not in gone]
    return most
