"""What Transformer Engine's kernels are documented to compute, in torch: products, norm, rotation, packs and optimizer.

Each function stands where transformer_engine_torch has one of the same name, with the arguments by which Transformer
Engine's Python calls it, and checks of them what the kernel would: dtypes, shapes, the rows that an fp8 product reads.
"""

import enum
from itertools import pairwise
from typing import Any

import torch

DType = enum.IntEnum(  # type: ignore[misc]
    "DType",
    "kByte kInt16 kInt32 kInt64 kFloat32 kFloat16 kBFloat16 kFloat8E4M3 kFloat8E5M2 kFloat8E8M0 kFloat4E2M1",
    start=0,
)
TORCH = {DType.kFloat32: torch.float32, DType.kBFloat16: torch.bfloat16, DType.kFloat16: torch.float16}
FP8 = {DType.kFloat8E4M3: torch.float8_e4m3fn, DType.kFloat8E5M2: torch.float8_e5m2}
FP8_ROWS, FP8_COLUMNS = 8, 16  # what the dimensions of an fp8 product's operands are multiples of


def is_fp8(tensor: Any) -> bool:
    return hasattr(tensor, "_scale_inv")


def widened(tensor: Any, columns: bool) -> torch.Tensor:
    """An operand in fp32. Hopper's fp8 products read rows: one that is read by columns must hold its transpose too."""
    if not is_fp8(tensor):
        return tensor.float()
    dtype = FP8[DType(tensor._fp8_dtype)]
    if not columns:
        assert tensor._data is not None, "an fp8 operand without its rows"
        return tensor._data.view(dtype).float() * tensor._scale_inv
    transpose = tensor._transpose
    assert transpose is not None and not getattr(tensor, "_transpose_invalid", False), "fp8 without its transpose"
    flat = transpose.reshape(transpose.shape[0], -1).view(dtype).float().T * tensor._scale_inv
    return flat.reshape(*transpose.shape[1:], transpose.shape[0])


def generic_gemm(
    a: Any,
    transpose_a: bool,
    b: Any,
    transpose_b: bool,
    out: torch.Tensor | None,
    quantizer: Any,
    out_dtype: int | None,
    bias: torch.Tensor | None,
    bias_dtype: int,
    gelu: bool,
    gelu_in: torch.Tensor | None,
    grad: bool,
    workspace: torch.Tensor,
    workspace_size: int,
    accumulate: bool,
    split_accumulator: bool,
    **more: Any,
) -> tuple[torch.Tensor, None, None, None]:
    """op(b) op(a), in fp32: cuBLAS names its operands by columns."""
    assert quantizer is None and bias is None and not gelu and more.get("comm_overlap") is None
    assert is_fp8(a) == is_fp8(b), "one operand in fp8, the other not"
    left, right = widened(b, transpose_b), widened(a, not transpose_a)
    leading = left.shape[:-1]
    left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    if is_fp8(a):
        assert not left.shape[0] % FP8_ROWS and not left.shape[1] % FP8_COLUMNS and not right.shape[1] % FP8_COLUMNS
        assert out is not None or out_dtype is not None, "fp8 says nothing of the result's dtype"
    product = (left.T if transpose_b else left) @ (right.T if transpose_a else right)
    if not transpose_b:
        product = product.reshape(*leading, -1)
    if out is not None:
        out.copy_(out + product if accumulate else product)
        return out, None, None, None
    return product.to(a.dtype if out_dtype is None else TORCH[DType(out_dtype)]), None, None, None


def rmsnorm_fwd(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    out: Any,
    quantizer: Any,
    out_dtype: int,
    sm_margin: int,
    zero_centered: bool,
) -> tuple[Any, None, torch.Tensor]:
    assert x.dim() == 2 and not zero_centered
    inverse = torch.rsqrt(x.float().square().mean(-1) + eps)
    normed = (x.float() * inverse[:, None] * weight.float()).to(TORCH[DType(out_dtype)])
    return (normed if quantizer is None else quantizer(normed)), None, inverse


def rmsnorm_bwd(
    grad: torch.Tensor,
    x: torch.Tensor,
    inverse: torch.Tensor,
    weight: torch.Tensor,
    sm_margin: int,
    zero_centered: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    normed, weighted = x.float() * inverse[:, None], grad.float() * weight.float()
    inner = (weighted * normed).mean(-1, keepdim=True)
    to_x = inverse[:, None] * (weighted - normed * inner)
    return to_x.to(x.dtype), (grad.float() * normed).sum(0).to(weight.dtype)


def _positions(cu_seqlens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """The position of each token in its own sample, int64 [tokens]."""
    assert cu_seqlens.dtype == torch.int32
    edges = cu_seqlens.tolist()
    assert edges[-1] == num_tokens, f"cu_seqlens end at {edges[-1]} of {num_tokens} tokens"
    return torch.cat([torch.arange(end - start) for start, end in pairwise(edges)])


def _rotated(
    tensor: torch.Tensor, freqs: torch.Tensor, layout: str, cu_seqlens: torch.Tensor, sign: int
) -> torch.Tensor:
    assert layout.endswith("THD") and tensor.dim() == 3 and freqs.dtype == torch.float32 and freqs.dim() == 4
    where = _positions(cu_seqlens, tensor.shape[0])
    assert int(where.max()) < freqs.shape[0], "fewer angles than the longest sample has tokens"
    angles = freqs[where].squeeze(1)
    first, second = tensor.float().chunk(2, -1)
    turned = torch.cat((-second, first), -1)
    return (tensor.float() * angles.cos() + turned * angles.sin() * sign).to(tensor.dtype)


def fused_rope_forward(
    tensor: torch.Tensor, freqs: torch.Tensor, start: None, layout: str, interleaved: bool, cu_seqlens: Any, *cp: int
) -> torch.Tensor:
    assert start is None and not interleaved and cp == (1, 0)
    return _rotated(tensor, freqs, layout, cu_seqlens, 1)


def fused_rope_backward(
    grad: torch.Tensor, freqs: torch.Tensor, start: None, layout: str, interleaved: bool, cu_seqlens: Any, *cp: int
) -> torch.Tensor:
    return _rotated(grad, freqs, layout, cu_seqlens, -1)


def convert_thd_to_bshd(tensor: torch.Tensor, cu_seqlens: torch.Tensor, batch: int, longest: int) -> torch.Tensor:
    out, edges = tensor.new_zeros(batch, longest, *tensor.shape[1:]), cu_seqlens.tolist()
    for row, (start, end) in enumerate(pairwise(edges)):
        assert end - start <= longest, "max_seqlen is smaller than a sample"
        out[row, : end - start] = tensor[start:end]
    return out


def convert_bshd_to_thd(tensor: torch.Tensor, cu_seqlens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    out, edges = tensor.new_zeros(num_tokens, *tensor.shape[2:]), cu_seqlens.tolist()
    for row, (start, end) in enumerate(pairwise(edges)):
        out[start:end] = tensor[row, : end - start]
    return out


def multi_tensor_adam(
    chunk: int,
    noop: torch.Tensor,
    lists: list[list[torch.Tensor]],
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    decoupled: int,
    bias_correction: int,
    weight_decay: float,
) -> None:
    """AdamW on lists of gradients, parameters, first and second moments and, where there are, fp32 parameters."""
    assert decoupled and bias_correction
    for grad, parameter, first, second, *main in zip(*lists, strict=True):
        assert first.dtype == second.dtype == torch.float32, "FusedAdam unpacks moments before the kernel"
        target = main[0] if main else parameter
        value = target.float() * (1 - rate * weight_decay)
        first.mul_(beta1).add_(grad.float(), alpha=1 - beta1)
        second.mul_(beta2).addcmul_(grad.float(), grad.float(), value=1 - beta2)
        size = (second / (1 - beta2**step)).sqrt() + eps
        target.copy_(value - rate * (first / (1 - beta1**step)) / size)
        if main:
            parameter.copy_(target)


def multi_tensor_scale(chunk: int, noop: torch.Tensor, lists: list[list[torch.Tensor]], scale: float) -> None:
    for source, target in zip(*lists, strict=True):
        target.copy_(source * scale)


def multi_tensor_l2norm(
    chunk: int, noop: torch.Tensor, lists: list[list[torch.Tensor]], per_tensor: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    assert not per_tensor
    total = sum((tensor.float().square().sum() for tensor in lists[0]), torch.zeros(()))
    return total.sqrt().reshape(1), torch.zeros(1)
