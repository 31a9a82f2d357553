"""Megatron-core without a GPU: `enable()` maps its hard-wired CUDA calls to the CPU.

megatron-core 0.16 allocates on `torch.cuda.current_device()` or the literal "cuda", asks `Tensor.type()` for
"torch.cuda.FloatTensor", and keeps random states through torch.cuda. With no GPU present each of those is pointed at
its CPU counterpart, and the collectives run over gloo. torch's compiler stays out: megatron-core compiles its fused
functions as it is imported; and so do Transformer Engine and Apex, where they are installed. Nothing is touched on a
machine with CUDA. Call it before anything of megatron.core is imported.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

_enabled = False


def enable() -> None:
    """Patch torch once, in this process, if it has no CUDA."""
    global _enabled
    if _enabled or torch.cuda.is_available():
        return
    _enabled = True
    _leave_out_gpu_kernels()
    _leave_out_compiler()
    _patch_allocation()
    _patch_streams()
    _patch_random_states()
    _patch_type_names()


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with device="cuda" read as the CPU."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        device = kwargs.get("device")
        if device is not None and str(device).startswith("cuda"):
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)

    return wrapped


def _leave_out_gpu_kernels() -> None:
    """megatron-core takes Adam and the gradient norm from Transformer Engine or Apex wherever one can be imported, as in
    the NeMo image: CUDA kernels, which CPU tensors cannot be given."""
    for name in ("transformer_engine", "apex"):
        sys.modules[name] = None  # type: ignore[assignment]


def _leave_out_compiler() -> None:
    """torch.compile gives back what it is given: a process starts 1.5 s of CPU sooner, with 45 MB less."""
    torch.compile = _as_it_is


def _as_it_is(model: Any = None, **options: Any) -> Any:
    return model if model is not None else lambda function: function


def _patch_allocation() -> None:
    # Buffers everywhere: torch.empty(..., device=torch.cuda.current_device()).
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment,return-value]
    # pipeline_parallel/schedules.py counts tokens, optimizer/*.py keeps scales and norms in
    # zeros/tensor(device="cuda"); optimizer checkpoints and exchange_utils make empty ones.
    for name in ("zeros", "tensor", "empty", "empty_like"):
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    # language_module copies tied embeddings with .cuda(), the optimizer its loaded state.
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]


def _patch_streams() -> None:
    # p2p_communication synchronizes after each exchange, the checkpoint writer after copying to the host.
    torch.cuda.synchronize = lambda *args, **kwargs: None
    # The device of a rank is chosen with set_device.
    torch.cuda.set_device = lambda *args, **kwargs: None
    # utils.nvtx_range_push/pop surround every attention step.
    torch.cuda.nvtx.range_push = lambda *args, **kwargs: None
    torch.cuda.nvtx.range_pop = lambda *args, **kwargs: None


def _patch_random_states() -> None:
    # tensor_parallel.random keeps one generator state per kind of parallelism through these three.
    torch.cuda.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    torch.cuda.set_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
    torch.cuda.manual_seed = lambda seed: torch.manual_seed(seed)  # type: ignore[assignment]
    from megatron.core.tensor_parallel import random

    # The same module bypasses torch.cuda with functions of its own, which need torch._C's CUDA generator.
    random._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)


def _patch_type_names() -> None:
    # The optimizers sort parameters by param.type() == "torch.cuda.FloatTensor" and refuse any other name.
    original = torch.Tensor.type

    def type_name(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return original(self, *args, **kwargs)
        return original(self).replace("torch.", "torch.cuda.", 1)

    torch.Tensor.type = type_name  # type: ignore[method-assign,assignment]
