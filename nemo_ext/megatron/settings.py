"""Every knob of the trainer, once, with its default. Light imports only: the launcher plans with it."""

from dataclasses import dataclass

from nemo_ext.models.shape import ModelShape

CHOICES: dict[str, tuple[str | None, ...]] = {
    "layers": ("auto", "local", "transformer_engine"),
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

    overlap_communication: bool | None = None
    """Reduce gradients and gather weights while layers compute. None: on GPUs; on a CPU no core is to spare for it."""

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

    layers: str = "auto"
    """Whose kernels: transformer_engine's, megatron-core's local ones, or auto, the first where it can be used."""
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
    deterministic_mode: bool = True
    """On GPUs, only kernels that give the same bits every time, so that a resumed run repeats the uninterrupted one;
    false: the fastest ones. On a CPU there are no others."""
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


def padded_vocab(settings: TrainSettings, shape: ModelShape) -> int:
    """Rows of the embedding over all tensor parallel ranks."""
    return shape.padded_vocab(settings.make_vocab_size_divisible_by * settings.tensor_model_parallel_size)


def saves_at(settings: TrainSettings, step: int) -> bool:
    """Whether there is to be a checkpoint after `step` steps."""
    intervals = [settings.train_iters, settings.save_interval, settings.keep_interval]
    return any(interval is not None and step % interval == 0 for interval in intervals)


def validate(settings: TrainSettings, shape: ModelShape | None = None) -> None:
    """Everything that can be refused before a process starts; with `shape`, also what the model does not divide into.

    Raises:
        ValueError: one line naming the setting, its value and what it may be.
    """
    for name, choices in CHOICES.items():
        if getattr(settings, name) not in choices:
            raise ValueError(f"{name}={getattr(settings, name)!r}: it may be one of {choices}")
    _check_positive(settings)
    _check_parallelism(settings)
    _check_kernels(settings)
    if settings.lr_warmup_iters >= settings.train_iters:
        raise ValueError(f"lr_warmup_iters={settings.lr_warmup_iters}: less than train_iters={settings.train_iters}")
    if settings.min_lr is not None and not 0 <= settings.min_lr <= settings.lr:
        raise ValueError(f"min_lr={settings.min_lr}: between 0 and lr={settings.lr}")
    if shape is not None:
        _check_shape(settings, shape)


def _check_parallelism(settings: TrainSettings) -> None:
    length, tensor, pipeline = (
        pack_length(settings),
        settings.tensor_model_parallel_size,
        settings.pipeline_model_parallel_size,
    )
    if length < settings.seq_length:
        raise ValueError(f"pack_length={settings.pack_length}: it must be at least seq_length={settings.seq_length}")
    if settings.sequence_parallel and tensor == 1:
        raise ValueError("sequence_parallel=true needs tensor_model_parallel_size > 1")
    pieces = settings.context_parallel_size * (tensor if settings.sequence_parallel else 1)
    if length % pieces:
        raise ValueError(f"pack_length={length}: context and sequence parallelism need a multiple of {pieces}")
    virtual = settings.virtual_pipeline_model_parallel_size
    if virtual is not None and pipeline == 1:
        raise ValueError(f"virtual_pipeline_model_parallel_size={virtual} needs pipeline_model_parallel_size > 1")
    if virtual == 1:
        raise ValueError(
            "virtual_pipeline_model_parallel_size=1 is no virtual pipeline: it may be null, or at least 2"
        )
    if settings.packs_per_step is not None and settings.packing != "global":
        raise ValueError(f"packs_per_step={settings.packs_per_step} needs packing=global; a windowed step is samples")


def _check_kernels(settings: TrainSettings) -> None:
    """What Transformer Engine's kernels ask for. Whether it is there is found out on the GPU (layers.py)."""
    kept = settings.num_layers_at_start_in_bf16 + settings.num_layers_at_end_in_bf16
    if settings.fp8 and settings.precision != "bf16":
        raise ValueError(f"fp8={settings.fp8} needs precision=bf16, not {settings.precision}")
    if kept and (not settings.fp8 or settings.fp8_recipe != "tensorwise"):
        raise ValueError("layers in bf16 (num_layers_at_start/end_in_bf16) need fp8 with fp8_recipe=tensorwise")
    tokens = pack_length(settings) // settings.context_parallel_size
    tokens //= settings.tensor_model_parallel_size if settings.sequence_parallel else 1
    if settings.fp8 and tokens % 16:
        raise ValueError(f"fp8={settings.fp8}: a rank's {tokens} tokens of a pack must be a multiple of 16")
    if settings.use_precision_aware_optimizer and not settings.use_distributed_optimizer:
        raise ValueError("use_precision_aware_optimizer=true needs use_distributed_optimizer=true")
    for name in ("fp8", "use_precision_aware_optimizer"):
        if settings.layers == "local" and getattr(settings, name):
            raise ValueError(f"{name}={getattr(settings, name)} needs Transformer Engine, but layers=local")
    for name in ("exp_avg_dtype", "exp_avg_sq_dtype"):
        if getattr(settings, name) != "fp32" and not settings.use_precision_aware_optimizer:
            raise ValueError(f"{name}={getattr(settings, name)} needs use_precision_aware_optimizer=true")


def _check_positive(settings: TrainSettings) -> None:
    names = ["tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size"]
    names += ["data_parallel_size", "global_batch_size", "seq_length", "train_iters", "save_interval", "eval_interval"]
    names += ["log_interval", "recompute_num_layers", "max_skipped_steps", "make_vocab_size_divisible_by"]
    optional = ["pack_length", "packs_per_step", "keep_checkpoints", "keep_interval", "eval_iters"]
    optional += ["virtual_pipeline_model_parallel_size"]
    names += [name for name in optional if getattr(settings, name) is not None]
    for name in names:
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}={getattr(settings, name)}: it must be at least 1")
    for name in ("lr", "weight_decay", "clip_grad", "lr_warmup_iters"):
        if getattr(settings, name) < 0:
            raise ValueError(f"{name}={getattr(settings, name)}: it must not be negative")


def _check_shape(settings: TrainSettings, shape: ModelShape) -> None:
    tensor, context = settings.tensor_model_parallel_size, settings.context_parallel_size
    stages = settings.pipeline_model_parallel_size * (settings.virtual_pipeline_model_parallel_size or 1)
    divisions = [
        (f"tensor_model_parallel_size={tensor}", tensor, shape.num_kv_heads, "key-value heads"),
        (f"tensor_model_parallel_size={tensor}", tensor, shape.ffn_size, "ffn channels"),
        (f"tensor x context parallel size = {tensor * context}", tensor * context, shape.num_heads, "attention heads"),
        (f"pipeline x virtual pipeline size = {stages}", stages, shape.num_layers, "layers"),
    ]
    for name, size, count, what in divisions:
        if count % size:
            raise ValueError(f"{name}: the model has {count} {what}, which it does not divide")
    if shape.sliding_window is not None and settings.seq_length > shape.sliding_window:
        raise ValueError(
            f"seq_length={settings.seq_length}: the model attends to {shape.sliding_window} tokens back (sliding_window), "
            "and longer samples would need a mask that is not supported"
        )
    if settings.seq_length > shape.max_positions:
        raise ValueError(f"seq_length={settings.seq_length}: the model was made for {shape.max_positions} positions")
