"""Adam and its schedule on top of Megatron's data parallel wrapper."""

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.utils import get_model_config

from nemo_ext.megatron.settings import TrainSettings


def wrap_data_parallel(settings: TrainSettings, model: torch.nn.Module) -> DistributedDataParallel:
    """The model with one contiguous gradient buffer; gradients are reduced in fp32.

    Communication overlaps the backward pass on GPUs only: gloo on a CPU has no cores to spare for it.
    """
    config = get_model_config(model)
    overlap = not config.use_cpu_initialization
    wrapped = DistributedDataParallel(
        config,
        DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            overlap_grad_reduce=overlap,
            overlap_param_gather=overlap and settings.use_distributed_optimizer,
            use_distributed_optimizer=settings.use_distributed_optimizer,
        ),
        model,
    )
    config.finalize_model_grads_func = finalize_model_grads
    if overlap:
        config.no_sync_func = wrapped.no_sync
        config.grad_sync_func = wrapped.start_grad_sync
        if settings.use_distributed_optimizer:
            config.param_sync_func = wrapped.start_param_sync
    return wrapped


def build_optimizer(settings: TrainSettings, model: DistributedDataParallel) -> MegatronOptimizer:
    """AdamW, decay on matrices only. Copies its fp32 weights from the model's: load those first."""
    min_lr = settings.lr if settings.min_lr is None else settings.min_lr
    config = OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=min_lr,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_eps=settings.adam_eps,
        # Megatron computes the gradient norm only when it clips; an infinite bound gives the norm and clips nothing.
        clip_grad=settings.clip_grad or float("inf"),
        bf16=settings.precision == "bf16",
        params_dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float32,
        use_distributed_optimizer=settings.use_distributed_optimizer,
        overlap_param_gather=model.ddp_config.overlap_param_gather,
    )
    return get_megatron_optimizer(config, [model])


def build_scheduler(settings: TrainSettings, optimizer: MegatronOptimizer) -> OptimizerParamScheduler:
    """Learning rate per step. It also rewrites every group's weight decay at each step, so it must be told the same
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
