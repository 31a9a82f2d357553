"""Fast matrix products must be exact ones."""

import pytest
import torch

from nemo_ext.megatron.layers import matmul


def test_it_is_only_used_where_it_is_exact() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    try:
        used = matmul.use_fast_matmul()
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(256, 256, generator=generator) for _ in range(2))
        expected = (left.double() @ right.double()).float()
        torch.testing.assert_close(left @ right, expected, rtol=1e-5, atol=1e-4)
        assert torch.backends.mkldnn.matmul.fp32_precision == ("bf16" if used else before)
        with matmul.default_matmul():
            assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_a_rounding_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert matmul._is_exact()
    exact = torch.full
    monkeypatch.setattr(torch, "full", lambda *args: exact(*args).bfloat16().float())
    assert not matmul._is_exact()
