"""Quantisation to fp8 with one scale per tensor, by the tensor's own largest value or by those of steps before."""

import enum
from typing import Any

import torch
import torch.distributed as dist

from tests.contract.kernels import FP8, TORCH, DType, widened

_FORWARD = [f"GEMM{number}_{what}" for number in (1, 2, 3) for what in ("INPUT", "WEIGHT", "OUTPUT")]
_BACKWARD = [f"{what}{number}" for number in (1, 2, 3) for what in ("GRAD_OUTPUT", "GRAD_INPUT")]
FP8FwdTensors = enum.IntEnum("FP8FwdTensors", _FORWARD, start=0)  # type: ignore[misc]
FP8BwdTensors = enum.IntEnum("FP8BwdTensors", _BACKWARD, start=0)  # type: ignore[misc]


def quantize(tensor: torch.Tensor, quantizer: Any, out: Any = None, noop: Any = None) -> Any:
    """A Float8Tensor of what the quantizer is asked for: rows, their transpose, or both."""
    dtype = FP8[DType(quantizer.dtype)]
    largest, amax = torch.finfo(dtype).max, tensor.detach().float().abs().max()
    if hasattr(quantizer, "with_amax_reduction"):  # current scaling
        if quantizer.with_amax_reduction:
            dist.all_reduce(amax, dist.ReduceOp.MAX, group=quantizer.amax_reduction_group)
        quantizer.amax.copy_(amax)
        quantizer.scale.copy_(largest / amax if amax > 0 else torch.ones(()))
    else:  # delayed scaling
        quantizer.amax.copy_(torch.maximum(quantizer.amax, amax))
    scaled = (tensor.detach().float() * quantizer.scale).clamp(-largest, largest)
    rows = scaled.to(dtype).view(torch.uint8)
    transpose = None
    if quantizer.columnwise_usage:
        flat = rows.reshape(-1, rows.shape[-1]).T.contiguous()
        transpose = flat.reshape(rows.shape[-1], *rows.shape[:-1])
    inverse = (1 / quantizer.scale).reshape(1)
    return _made(tensor, quantizer, rows, transpose, inverse) if out is None else _into(out, rows, transpose, inverse)


def _made(tensor: torch.Tensor, quantizer: Any, rows: torch.Tensor, transpose: Any, inverse: torch.Tensor) -> Any:
    from transformer_engine.pytorch.tensor.float8_tensor import Float8Tensor
    from transformer_engine.pytorch.tensor.storage.float8_tensor_storage import Float8TensorStorage

    fields = {
        "data": rows if quantizer.rowwise_usage else None,
        "data_transpose": transpose,
        "fp8_scale_inv": inverse,
        "fp8_dtype": quantizer.dtype,
        "quantizer": quantizer,
    }
    if quantizer.internal:
        return Float8TensorStorage(**fields)
    return Float8Tensor(shape=tuple(rows.shape), dtype=tensor.dtype, requires_grad=False, **fields)


def _into(out: Any, rows: torch.Tensor, transpose: Any, inverse: torch.Tensor) -> Any:
    if out._data is not None:
        out._data.copy_(rows)
    if transpose is not None:
        out._transpose, out._transpose_invalid = transpose, False
    out._scale_inv.copy_(inverse)
    return out


def dequantize(tensor: Any, dtype: int) -> torch.Tensor:
    return widened(tensor, columns=tensor._data is None).to(TORCH[DType(dtype)])


def fp8_transpose(rows: torch.Tensor, dtype: int, out: Any = None) -> torch.Tensor:
    transpose = rows.reshape(-1, rows.shape[-1]).T.contiguous()
    return transpose if out is None else out.copy_(transpose.reshape(out.shape))


def fused_amax_and_scale_update_after_reduction(
    reduced: torch.Tensor,
    histories: list[torch.Tensor],
    scales: list[torch.Tensor],
    algorithm: str,
    dtype: int,
    margin: int,
) -> None:
    """Delayed scaling after a step: each history moves on by one, its largest value makes the scale."""
    assert algorithm == "max"
    largest, start = torch.finfo(FP8[DType(dtype)]).max, 0
    for history, scale in zip(histories, scales, strict=True):
        history[0] = reduced[start : start + history.shape[1]]
        start += history.shape[1]
        amax = history.max(0).values
        history.copy_(history.roll(-1, 0))
        history[0] = 0
        new = largest / amax / 2**margin
        scale.copy_(torch.where((amax > 0) & new.isfinite(), new, scale))
