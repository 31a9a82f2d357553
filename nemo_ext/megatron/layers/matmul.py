"""Faster fp32 matrix products on CPUs, where they are as exact.

torch's fp32 products go to MKL, which uses half the vector width of a CPU that is not Intel's. Allowing reduced
precision sends them to oneDNN instead, which computes in full fp32 unless the CPU has matrix units for bf16 (AMX).
Whether it does is found out by asking for a product that bf16 cannot represent. Seen: 80 -> 200 GFLOP/s on one core of
an AMD Zen 5.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger(__name__)
_SIZE = 256  # large enough for torch to hand the product to oneDNN


def use_fast_matmul() -> bool:
    """Let oneDNN do this process's fp32 products if that changes nothing; True if it does them now."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if torch.cuda.is_available() or not torch.backends.mkldnn.is_available():
        return False
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    if not _is_exact():
        settings.fp32_precision = before
        return False
    logger.info("fp32 matrix products: oneDNN, in full precision")
    return True


@contextmanager
def default_matmul() -> Iterator[None]:
    """Products as torch does them by default: oneDNN is slow at the many small ones inside fused attention."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _is_exact() -> bool:
    """bf16 has 8 bits: it would round 1 + 2^-12 to 1, and the sum of the squares to an integer."""
    ones = torch.full((_SIZE, _SIZE), 1 + 2**-12)
    expected = _SIZE * (1 + 2**-12) ** 2
    return bool(((ones @ ones) / expected - 1).abs().max() < 1e-6)
