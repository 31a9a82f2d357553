"""Adam and its schedule on top of Megatron's data parallel wrapper."""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.utils import get_model_config

from nemo_ext.megatron.settings import TrainSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def wrap_data_parallel(settings: TrainSettings, chunks: Sequence[torch.nn.Module]) -> list[DistributedDataParallel]:
    """The model chunks, each with one contiguous gradient buffer; gradients are reduced in fp32."""
    config = get_model_config(chunks[0])
    asked = settings.overlap_communication
    overlap = not config.use_cpu_initialization if asked is None else asked
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=overlap,
        overlap_param_gather=overlap and settings.use_distributed_optimizer,
        use_distributed_optimizer=settings.use_distributed_optimizer,
    )
    wrapped = [
        # The first chunk's gradients come last, with nothing left to overlap with the others' buckets.
        DistributedDataParallel(config, ddp_config, chunk, disable_bucketing=number > 0)
        for number, chunk in enumerate(chunks)
    ]
    config.finalize_model_grads_func = finalize_model_grads
    if overlap:
        config.no_sync_func = _one_or_all([chunk.no_sync for chunk in wrapped])
        config.grad_sync_func = _one_or_all([chunk.start_grad_sync for chunk in wrapped])
        if settings.use_distributed_optimizer:
            config.param_sync_func = _one_or_all([chunk.start_param_sync for chunk in wrapped])
    return wrapped


def _one_or_all(functions: list[Any]) -> Any:
    """Megatron's schedules take a list only for a virtual pipeline."""
    return functions[0] if len(functions) == 1 else functions


def gather_weights(chunks: Sequence[DistributedDataParallel]) -> None:
    """Make every rank's weights those of the last step. With the distributed optimizer and overlap_communication a rank
    has only its own share of them until its next forward pass asks for the others'."""
    for chunk in chunks:
        if chunk.ddp_config.overlap_param_gather:
            chunk.start_param_sync(force_sync=True)


def build_optimizer(settings: TrainSettings, chunks: Sequence[DistributedDataParallel]) -> MegatronOptimizer:
    """AdamW, decay on matrices only: never on norms and biases. Copies its fp32 weights from the model's: load those
    first."""
    min_lr = settings.lr if settings.min_lr is None else settings.min_lr
    config = OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=min_lr,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_eps=settings.adam_eps,
        clip_grad=settings.clip_grad,
        bf16=settings.precision == "bf16",
        params_dtype=DTYPES[settings.precision],
        use_distributed_optimizer=settings.use_distributed_optimizer,
        overlap_param_gather=chunks[0].ddp_config.overlap_param_gather,
        use_precision_aware_optimizer=settings.use_precision_aware_optimizer,
        exp_avg_dtype=DTYPES[settings.exp_avg_dtype],
        exp_avg_sq_dtype=DTYPES[settings.exp_avg_sq_dtype],
        # Whole fp32 weights, not the 16 bits that bf16 lacks: checkpoints hold them, and they are what is averaged.
        store_param_remainders=False,
    )
    return get_megatron_optimizer(config, list(chunks))


def build_scheduler(settings: TrainSettings, optimizer: MegatronOptimizer) -> OptimizerParamScheduler:
    """Learning rate per step. It also rewrites every group's weight decay at each step, so it must be given the same
    one as the optimizer: recipes that give it another train with that other one (facts seen in Megatron-Bridge)."""
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=settings.lr,
        min_lr=settings.lr if settings.min_lr is None else settings.min_lr,
        lr_warmup_steps=settings.lr_warmup_iters,
        lr_decay_steps=settings.train_iters,
        lr_decay_style=settings.lr_decay_style,
        start_wd=settings.weight_decay,
        end_wd=settings.weight_decay,
        wd_incr_steps=settings.train_iters,
        wd_incr_style="constant",
    )


def learning_rate(optimizer: MegatronOptimizer) -> float:
    """What the next step will use."""
    return float(optimizer.param_groups[0]["lr"])
