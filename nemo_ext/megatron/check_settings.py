"""Refuse settings that do not fit each other or the model, before a process starts. Light imports only."""

from nemo_ext import plug_ins
from nemo_ext.megatron import families, objective
from nemo_ext.megatron.settings import ForwardSettings, TrainSettings, pack_length
from nemo_ext.models.shape import ModelShape

FORWARD_CHOICES: dict[str, tuple[str | None, ...]] = {
    "layers": ("auto", "local", "transformer_engine"),
    "precision": ("bf16", "fp32"),
    "fp8": (None, "e4m3", "hybrid"),
    "fp8_recipe": ("delayed", "tensorwise"),
}
CHOICES: dict[str, tuple[str | None, ...]] = {
    "init": ("hf", "random"),
    "packing": ("windowed", "global"),
    "loss_mean": ("tokens", "samples"),
    "lr_decay_style": ("constant", "linear", "cosine", "inverse-square-root"),
    "recompute_granularity": (None, "selective", "full"),
    "recompute_method": ("uniform", "block"),
    "exp_avg_dtype": ("fp32", "bf16"),
    "exp_avg_sq_dtype": ("fp32", "bf16"),
    "on_bad_step": ("stop", "skip"),
}
FORWARD_POSITIVE = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size",
    "context_parallel_size",
    "data_parallel_size",
    "seq_length",
    "pack_length",
    "make_vocab_size_divisible_by",
)
POSITIVE = (
    "global_batch_size",
    "packs_per_step",
    "train_iters",
    "save_interval",
    "keep_checkpoints",
    "keep_interval",
    "eval_interval",
    "eval_iters",
    "log_interval",
    "recompute_num_layers",
    "max_skipped_steps",
)
"""At least 1, where they are not null."""
NOT_NEGATIVE = ("lr", "weight_decay", "clip_grad", "lr_warmup_iters")


def validate(settings: TrainSettings, shape: ModelShape | None = None) -> None:
    """Refuse a training that cannot start; with `shape`, also one whose model the processes do not divide.

    Raises:
        ValueError: one line naming the setting, its value and what it may be.
    """
    validate_forward(settings, shape)
    _check_choices(settings, CHOICES)
    _check_positive(settings, POSITIVE)
    for name in NOT_NEGATIVE:
        if getattr(settings, name) < 0:
            raise ValueError(f"{name}={getattr(settings, name)}: it must not be negative")
    _check_optimizer(settings)
    _check_dropout(settings)
    chosen = objective.load(settings.objective)
    if settings.loss_mean != "tokens" and not chosen.counts_tokens:
        raise ValueError(
            f"loss_mean={settings.loss_mean}: objective.kind={chosen.kind} has its own mean; leave it unset"
        )
    if settings.packs_per_step is not None and settings.packing != "global":
        raise ValueError(f"packs_per_step={settings.packs_per_step} needs packing=global; a windowed step is samples")
    if shape is not None:
        objective.trained_shape(settings.objective, shape)
    if settings.lr_warmup_iters >= settings.train_iters:
        raise ValueError(f"lr_warmup_iters={settings.lr_warmup_iters}: less than train_iters={settings.train_iters}")
    if settings.min_lr is not None and not 0 <= settings.min_lr <= settings.lr:
        raise ValueError(f"min_lr={settings.min_lr}: between 0 and lr={settings.lr}")


def validate_forward(settings: ForwardSettings, shape: ModelShape | None = None) -> None:
    """The same of what a forward pass takes.

    Raises:
        ValueError: one line naming the setting, its value and what it may be.
    """
    _check_choices(settings, FORWARD_CHOICES)
    _check_positive(settings, FORWARD_POSITIVE)
    _check_parallelism(settings)
    _check_kernels(settings)
    if shape is not None:
        _check_shape(settings, shape)


def _check_choices(settings: ForwardSettings, choices_of: dict[str, tuple[str | None, ...]]) -> None:
    for name, choices in choices_of.items():
        if getattr(settings, name) not in choices:
            raise ValueError(f"{name}={getattr(settings, name)!r}: it may be one of {choices}")


def _check_positive(settings: ForwardSettings, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: it must be at least 1")


def _check_parallelism(settings: ForwardSettings) -> None:
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
            "virtual_pipeline_model_parallel_size=1 is not a virtual pipeline: it may be null, or at least 2"
        )


def _check_kernels(settings: ForwardSettings) -> None:
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
    if settings.fp8 and settings.layers == "local":
        raise ValueError(f"fp8={settings.fp8} needs Transformer Engine, but layers=local")


def _check_optimizer(settings: TrainSettings) -> None:
    aware = settings.use_precision_aware_optimizer
    if aware and not settings.use_distributed_optimizer:
        raise ValueError("use_precision_aware_optimizer=true needs use_distributed_optimizer=true")
    if aware and settings.layers == "local":
        raise ValueError(f"use_precision_aware_optimizer={aware} needs Transformer Engine, but layers=local")
    for name in ("exp_avg_dtype", "exp_avg_sq_dtype"):
        if getattr(settings, name) != "fp32" and not aware:
            raise ValueError(f"{name}={getattr(settings, name)} needs use_precision_aware_optimizer=true")


def _check_architecture(shape: ModelShape) -> None:
    architecture, built = shape.family.architecture, plug_ins.names(families)
    if architecture not in built:
        raise ValueError(
            f"model_type={shape.model_type}: the trainer has no layers for its architecture {architecture!r}, it has "
            f"{built}. Such a model can be a teacher on a server; take another one as student"
        )


def _check_dropout(settings: TrainSettings) -> None:
    for name in ("hidden_dropout", "attention_dropout"):
        if not 0 <= getattr(settings, name) < 1:
            raise ValueError(f"{name}={getattr(settings, name)}: it must be at least 0, and less than 1")
    if settings.attention_dropout and settings.layers != "local":
        raise ValueError(
            f"attention_dropout={settings.attention_dropout} needs layers=local, not {settings.layers}: fused attention "
            "draws its masks from the random state of a process, so that they would change with topology and packing"
        )


def _check_shape(settings: ForwardSettings, shape: ModelShape) -> None:
    _check_architecture(shape)
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
