"""Every setting of a training, once, with its default, in groups that say who needs which. Light imports only."""

from dataclasses import dataclass, field
from typing import Any

from nemo_ext.models.shape import ModelShape


@dataclass(kw_only=True)
class Parallelism:
    """The processes of a job, and what each of them holds."""

    tensor_model_parallel_size: int = 1
    """Processes that share every layer's matrices."""
    pipeline_model_parallel_size: int = 1
    """Processes that each hold a run of consecutive layers."""
    virtual_pipeline_model_parallel_size: int | None = None
    """Runs of layers each pipeline process holds, interleaved with the others': smaller bubbles, more messages."""
    context_parallel_size: int = 1
    """Processes that share the tokens of every pack."""
    data_parallel_size: int = 1
    """Replicas of the whole model, each training on its own packs of the step."""
    sequence_parallel: bool = False
    """Split norms and residuals along the sequence over the tensor parallel processes: same result, less memory."""


@dataclass(kw_only=True)
class Batching:
    """Sizes of samples and micro-batches."""

    seq_length: int = 4096
    """Longest sample, tokens."""
    pack_length: int | None = None
    """Tokens per micro-batch; samples are packed into it. None: seq_length."""


@dataclass(kw_only=True)
class Kernels:
    """The layers' arithmetic."""

    layers: str = "auto"
    """Origin of the layers' kernels: transformer_engine, local (megatron-core's own), or auto, the first where it can
    be used."""
    precision: str = "bf16"
    """Weights and arithmetic: bf16 (the optimizer keeps fp32 weights) or fp32."""
    fp8: str | None = None
    """Matrix products in fp8: e4m3, or hybrid (e5m2 for gradients). None: in `precision`. Transformer Engine only."""
    fp8_recipe: str = "tensorwise"
    """Scales from earlier steps (delayed) or from the tensor itself (tensorwise, called current scaling elsewhere)."""
    num_layers_at_start_in_bf16: int = 0
    """First layers left in bf16, with fp8_recipe=tensorwise."""
    num_layers_at_end_in_bf16: int = 0
    """Last layers left in bf16, with fp8_recipe=tensorwise."""
    deterministic_mode: bool = True
    """On GPUs, only kernels that give the same bits every time, so that a resumed run repeats the uninterrupted one;
    false: the fastest ones. On a CPU there are no others."""
    make_vocab_size_divisible_by: int = 128
    """The vocabulary is padded to a multiple of this times tensor_model_parallel_size; pad rows are never used."""


@dataclass(kw_only=True)
class ForwardSettings(Kernels, Batching, Parallelism):
    """What it takes to build a model and run packs through it, forward."""


@dataclass(kw_only=True)
class Optimisation:
    """The steps: what each sees, its loss, its gradients and its update."""

    objective: dict[str, Any] = field(default_factory=lambda: {"kind": "sft"})
    """What is minimised: `kind`, a file name in nemo_ext/megatron/objectives, and that kind's own fields."""
    global_batch_size: int = 512
    """Samples per optimizer step, as the papers count (not packs), whatever the packing and the topology; pairs of them
    where the objective takes pairs."""
    packing: str = "windowed"
    """windowed: the samples of one step are packed, so that a step is exactly global_batch_size samples; global: the
    samples of an epoch are, a little tighter, and a step is as many packs as hold global_batch_size on average."""
    packs_per_step: int | None = None
    """Packs per step, what other trainers call the global batch; with packing=global. None: see packing."""
    loss_mean: str = "tokens"
    """What the loss of a step is the mean over: all its trained tokens, or its samples (each the mean of its own)."""
    train_iters: int = 1000
    """Optimizer steps."""
    lr: float = 5e-6
    """Peak learning rate."""
    min_lr: float | None = None
    """Learning rate at the end of the decay; None: lr."""
    lr_decay_style: str = "constant"
    """constant, linear, cosine or inverse-square-root, over train_iters."""
    lr_warmup_iters: int = 0
    """Steps of linear warm-up from 0."""
    adam_beta1: float = 0.9
    """Adam's decay of the gradient mean."""
    adam_beta2: float = 0.98
    """Adam's decay of the squared gradient mean."""
    adam_eps: float = 1e-8
    """Adam's denominator offset."""
    weight_decay: float = 0.01
    """Decoupled (AdamW), on matrices only: never on norms."""
    clip_grad: float = 0.0
    """Largest gradient norm; 0: no clipping. The norm is logged either way."""
    on_bad_step: str = "stop"
    """What happens when the loss or gradient norm is NaN or infinite, or spikes: stop, or skip the step's update."""
    max_skipped_steps: int = 10
    """Stop after this many skipped steps in a row, with on_bad_step=skip."""
    loss_spike_factor: float | None = None
    """A loss this many times the mean of the last 100 steps' is a spike; None: only NaN and infinity are bad."""
    use_distributed_optimizer: bool = True
    """Split Adam's state and the fp32 weights over the data parallel processes."""
    overlap_communication: bool | None = None
    """Reduce gradients and gather weights while layers compute. None: on GPUs; on a CPU no core is to spare for it."""
    use_precision_aware_optimizer: bool = False
    """Transformer Engine's Adam, which may keep its moments in bf16 and holds no second copy of the gradients."""
    exp_avg_dtype: str = "fp32"
    """Adam's gradient mean: fp32, or bf16 with use_precision_aware_optimizer."""
    exp_avg_sq_dtype: str = "fp32"
    """Adam's squared gradient mean: fp32, or bf16 with use_precision_aware_optimizer."""
    hidden_dropout: float = 0.0
    """Share of the hidden states set to 0 after the embedding, attention and the MLP, in training alone; the masks follow
    from seed, step, sample and position, so topology and resuming do not change them."""
    attention_dropout: float = 0.0
    """Share of the attention weights set to 0, in the same way; with layers=local."""
    recompute_granularity: str | None = None
    """None, selective (attention is recomputed in the backward pass) or full (whole layers are)."""
    recompute_method: str = "uniform"
    """Which layers recompute_granularity=full runs again: uniform (all layers, kept in groups) or block (the first layers
    of each stage, the others not)."""
    recompute_num_layers: int = 1
    """Layers per group (uniform) or layers recomputed per stage (block)."""
    init: str = "hf"
    """hf: the weights of the model's hf_path; random: fresh weights of its config, the same at every topology."""
    seed: int = 1234
    """Decides the data order and random weights."""


@dataclass(kw_only=True)
class Recording:
    """Checkpoints, evaluations and the log."""

    save_interval: int = 1000
    """Steps between checkpoints to go on from; there is always one at the end."""
    keep_checkpoints: int | None = None
    """Newest checkpoints kept, to go on from; None: all."""
    keep_interval: int | None = None
    """Steps between checkpoints that are kept whatever keep_checkpoints says: those to average."""
    async_save: bool = False
    """Write checkpoints while training goes on, at the price of a copy of model and optimizer in host memory."""
    eval_interval: int = 1000
    """Steps between evaluations; there is always one at the start and one at the end."""
    eval_iters: int | None = None
    """Validation micro-batches per data parallel replica and evaluation; None: the whole validation set."""
    log_interval: int = 10
    """Steps between log lines; metrics.jsonl has every step."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl, where the tensorboard package is installed."""
    wandb_project: str | None = None
    """A Weights & Biases project to log to as well; needs the wandb package and its key in the environment."""


@dataclass(kw_only=True)
class TrainSettings(Recording, Optimisation, ForwardSettings):
    """Every setting of a training. The keys are flat: the groups say who needs which."""


def world_size(settings: Parallelism) -> int:
    """Processes a run takes."""
    return (
        settings.tensor_model_parallel_size
        * settings.pipeline_model_parallel_size
        * settings.context_parallel_size
        * settings.data_parallel_size
    )


def pack_length(settings: Batching) -> int:
    """Tokens per micro-batch."""
    return settings.pack_length or settings.seq_length


def padded_vocab(settings: ForwardSettings, shape: ModelShape) -> int:
    """Rows of the embedding over all tensor parallel ranks."""
    return shape.padded_vocab(settings.make_vocab_size_divisible_by * settings.tensor_model_parallel_size)


def saves_at(settings: TrainSettings, step: int) -> bool:
    """Whether there is to be a checkpoint after `step` steps."""
    intervals = [settings.train_iters, settings.save_interval, settings.keep_interval]
    return any(interval is not None and step % interval == 0 for interval in intervals)
