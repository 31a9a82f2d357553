"""Every knob of the trainer, once, with its default. Light imports only: the launcher plans with it."""

from dataclasses import dataclass

from nemo_ext.megatron.shape import ModelShape

CHOICES: dict[str, tuple[str | None, ...]] = {
    "precision": ("bf16", "fp32"),
    "init": ("hf", "random"),
    "packing": ("windowed", "global"),
    "loss_mean": ("tokens", "samples"),
    "lr_decay_style": ("constant", "linear", "cosine", "inverse-square-root"),
    "recompute_granularity": (None, "selective", "full"),
    "recompute_method": ("uniform", "block"),
    "fp8": (None, "e4m3", "hybrid"),
    "fp8_recipe": ("delayed", "tensorwise"),
    "exp_avg_dtype": ("fp32", "bf16"),
    "exp_avg_sq_dtype": ("fp32", "bf16"),
    "on_bad_step": ("stop", "skip"),
}


@dataclass(kw_only=True)
class TrainSettings:
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
    use_distributed_optimizer: bool = True
    """Split Adam's state and the fp32 weights over the data parallel processes."""

    global_batch_size: int = 512
    """Samples per optimizer step, as the papers count (not packs), whatever the packing and the topology."""
    seq_length: int = 4096
    """Longest sample, tokens."""
    packing: str = "windowed"
    """windowed: the samples of one step are packed, so that a step is exactly global_batch_size samples; global: the
    samples of an epoch are, a little tighter, and a step is as many packs as hold global_batch_size on average."""
    packs_per_step: int | None = None
    """With packing=global: packs per step, what other trainers call the global batch. None: see packing."""
    pack_length: int | None = None
    """Tokens per micro-batch; samples are packed into it. None: seq_length."""
    loss_mean: str = "tokens"
    """What the loss of a step is the mean over: all its trained tokens, or its samples (each the mean of its own)."""
    train_iters: int = 1000
    """Optimizer steps."""
    save_interval: int = 1000
    """Steps between checkpoints; there is always one at the end."""
    keep_checkpoints: int | None = None
    """Newest checkpoints kept, to go on from; None: all."""
    keep_interval: int | None = None
    """Checkpoints of steps that are a multiple of this are kept whatever keep_checkpoints says: those to average."""
    async_save: bool = False
    """Write checkpoints while training goes on, at the price of a copy of model and optimizer in host memory."""
    eval_interval: int = 1000
    """Steps between evaluations; there is always one at the start and one at the end."""
    eval_iters: int | None = None
    """Validation micro-batches per data parallel replica and evaluation; None: the whole validation set."""

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

    precision: str = "bf16"
    """Weights and arithmetic: bf16 (the optimizer keeps fp32 weights) or fp32."""
    fp8: str | None = None
    """Matrix products in fp8: e4m3, or hybrid (e5m2 for gradients). None: in `precision`. Transformer Engine only."""
    fp8_recipe: str = "tensorwise"
    """Scales from earlier steps (delayed) or from the tensor itself (tensorwise, called current scaling elsewhere)."""
    num_layers_at_start_in_bf16: int = 0
    """With fp8_recipe=tensorwise: first layers left in bf16."""
    num_layers_at_end_in_bf16: int = 0
    """With fp8_recipe=tensorwise: last layers left in bf16."""
    use_precision_aware_optimizer: bool = False
    """Transformer Engine's Adam, which may keep its moments in bf16 and holds no second copy of the gradients."""
    exp_avg_dtype: str = "fp32"
    """Adam's gradient mean: fp32, or bf16 with use_precision_aware_optimizer."""
    exp_avg_sq_dtype: str = "fp32"
    """Adam's squared gradient mean: fp32, or bf16 with use_precision_aware_optimizer."""
    recompute_granularity: str | None = None
    """None, selective (attention is recomputed in the backward pass) or full (whole layers are)."""
    recompute_method: str = "uniform"
    """With full: uniform (all layers, kept in groups) or block (the first layers of each stage, the others not)."""
    recompute_num_layers: int = 1
    """With full: layers per group (uniform) or layers recomputed per stage (block)."""
    make_vocab_size_divisible_by: int = 128
    """The vocabulary is padded to a multiple of this times tensor_model_parallel_size; pad rows are never used."""
    init: str = "hf"
    """hf: the weights of the model's hf_path; random: fresh weights of its config, the same at every topology."""
    seed: int = 1234
    """Of the data order and of random weights."""

    log_interval: int = 10
    """Steps between log lines; metrics.jsonl has every step."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl, where the tensorboard package is installed."""
    wandb_project: str | None = None
    """Also log to this Weights & Biases project; needs the wandb package and its key in the environment."""
    on_bad_step: str = "stop"
    """When the loss or gradient norm is NaN or infinite, or spikes: stop, or skip the step's update."""
    max_skipped_steps: int = 10
    """With skip: stop after this many skipped steps in a row."""
    loss_spike_factor: float | None = None
    """A loss this many times the mean of the last 100 steps' is a spike; None: only NaN and infinity are bad."""


def world_size(settings: TrainSettings) -> int:
    """Processes a run takes."""
    return (
        settings.tensor_model_parallel_size
        * settings.pipeline_model_parallel_size
        * settings.context_parallel_size
        * settings.data_parallel_size
    )


def pack_length(settings: TrainSettings) -> int:
    """Tokens per micro-batch."""
    return settings.pack_length or settings.seq_length


def validate(settings: TrainSettings, shape: ModelShape | None = None) -> None:
    """Everything that can be refused before a process starts; with `shape`, also what the model does not divide into.

    Raises:
        ValueError: one line naming the setting, its value and what it may be.
    """
    for name, choices in CHOICES.items():
        if getattr(settings, name) not in choices:
            raise ValueError(f"{name}={getattr(settings, name)!r}: it may be one of {choices}")
    _check_positive(settings)
    if settings.context_parallel_size != 1:
        raise ValueError(
            f"context_parallel_size={settings.context_parallel_size}: only 1 in this version, more needs Transformer "
            "Engine's attention on GPUs; use tensor and sequence parallelism for long samples"
        )
    if pack_length(settings) < settings.seq_length:
        raise ValueError(f"pack_length={settings.pack_length}: it must be at least seq_length={settings.seq_length}")
    tensor = settings.tensor_model_parallel_size
    if settings.sequence_parallel and tensor == 1:
        raise ValueError("sequence_parallel=true needs tensor_model_parallel_size > 1")
    if settings.sequence_parallel and pack_length(settings) % tensor:
        raise ValueError(
            f"pack_length={pack_length(settings)}: sequence_parallel needs a multiple of "
            f"tensor_model_parallel_size={tensor}"
        )
    if settings.lr_warmup_iters >= settings.train_iters:
        raise ValueError(f"lr_warmup_iters={settings.lr_warmup_iters}: less than train_iters={settings.train_iters}")
    if settings.min_lr is not None and not 0 <= settings.min_lr <= settings.lr:
        raise ValueError(f"min_lr={settings.min_lr}: between 0 and lr={settings.lr}")
    if shape is not None:
        _check_shape(settings, shape)


def _check_positive(settings: TrainSettings) -> None:
    names = ["tensor_model_parallel_size", "pipeline_model_parallel_size", "data_parallel_size", "global_batch_size"]
    names += ["seq_length", "train_iters", "save_interval", "eval_interval", "make_vocab_size_divisible_by"]
    names += [n for n in ("pack_length", "keep_checkpoints", "eval_iters") if getattr(settings, n) is not None]
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}={getattr(settings, name)}: it must be at least 1")
    for name in ("lr", "weight_decay", "clip_grad", "lr_warmup_iters"):
        if getattr(settings, name) < 0:
            raise ValueError(f"{name}={getattr(settings, name)}: it must not be negative")


def _check_shape(settings: TrainSettings, shape: ModelShape) -> None:
    divisors = {
        "tensor_model_parallel_size": {
            "attention heads": shape.num_heads,
            "key-value heads": shape.num_kv_heads,
            "ffn channels": shape.ffn_size,
        },
        "pipeline_model_parallel_size": {"layers": shape.num_layers},
    }
    for name, counts in divisors.items():
        size = getattr(settings, name)
        for what, count in counts.items():
            if count % size:
                raise ValueError(f"{name}={size}: the model has {count} {what}, which it does not divide")
    if settings.seq_length > shape.max_positions:
        raise ValueError(f"seq_length={settings.seq_length}: the model was made for {shape.max_positions} positions")
