"""GPU memory and disk space of a training. Light imports only: the launcher plans with it.

Everything is per GPU of the pipeline stage that needs most, summed over that stage's own layers; what a layer needs, and
with which kernels, is its architecture's to say (nemo_ext/models/architectures). Checked against Korthikanti et al. 2022
(arXiv 2205.05198), Megatron-LM's theoretical_memory_usage.py and logs of real runs in
tests/nemo_ext/megatron_plan/test_memory_estimate.py; recipes/MEASURED.md has the errors.
"""

from dataclasses import dataclass

from nemo_ext.megatron.checkpoint_folders import expendable
from nemo_ext.megatron.objective import trained_shape
from nemo_ext.megatron.plan.activations import activations, element_bytes, temporary
from nemo_ext.megatron.plan.pipeline import stage_layers
from nemo_ext.megatron.settings import TrainSettings, padded_vocab, saves_at
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
        weights=weights * count + _fp8_copies(shape, settings, stage),
        gradients=gradients * count,
        optimizer=optimizer * count,
        activations=activations(shape, settings, stage),
        temporary=temporary(shape, settings, stage),
        other=0.0,
    )
    other = CONTEXT_BYTES + COMMUNICATOR_BYTES * _communicators(settings) + FRAGMENTATION * counted.total
    return Memory(**counted.parts() | {"other": other}, stage=stage)


def stage_parameters(shape: ModelShape, settings: TrainSettings, stage: int) -> int:
    """Parameters on one GPU of a stage: matrices are split over TP, norms and a regression head are not; the vocabulary
    is padded."""
    shape = trained_shape(settings.objective, shape)
    tensor, pipeline = settings.tensor_model_parallel_size, settings.pipeline_model_parallel_size
    layers = stage_layers(shape, settings, stage)
    total = sum(layer.split_parameters // tensor + layer.whole_parameters for layer in layers)
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


def _fp8_copies(shape: ModelShape, settings: TrainSettings, stage: int) -> float:
    """Transformer Engine keeps each layer matrix in fp8 too, plain and transposed, beside the bf16 one. Activations are
    counted in bf16 whatever fp8 says: an upper bound."""
    if settings.fp8 is None:
        return 0.0
    matrices = sum(layer.matmul_parameters for layer in stage_layers(shape, settings, stage))
    return 2.0 * matrices / settings.tensor_model_parallel_size


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
    return trained_shape(settings.objective, shape).num_parameters * (element_bytes(settings) + 12)


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
