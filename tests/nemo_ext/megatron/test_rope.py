"""Rotary frequencies against transformers, bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from nemo_ext.megatron.layers.rope import rotate, rotations
from nemo_ext.models.rope import inverse_frequencies
from nemo_ext.models.shape import ModelShape
from tests.nemo_ext.megatron.test_shape import LLAMA31_8B

LLAMA3 = LLAMA31_8B["rope_scaling"]


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 10000.0},
        {**LLAMA3, "rope_theta": 500000.0},
        {**LLAMA3, "rope_theta": 500000.0, "factor": 32.0},  # Llama 3.2
        {**LLAMA3, "rope_theta": 1e6, "low_freq_factor": 2.0, "high_freq_factor": 8.0},  # nobody's: not the defaults
    ],
)
def test_frequencies_equal_transformers(tmp_path: Path, rope: dict[str, Any]) -> None:
    fields = {key: value for key, value in LLAMA31_8B.items() if not key.startswith("rope")}
    (tmp_path / "config.json").write_text(json.dumps({**fields, "rope_parameters": rope}))
    theirs = LlamaRotaryEmbedding(LlamaConfig(**fields, rope_parameters=rope)).inv_freq
    assert torch.equal(inverse_frequencies(ModelShape.from_hf(tmp_path)), theirs)


def test_rotation_equals_transformers() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(9, 4, 8, generator=generator)
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 0, 1, 2])
    cos, sin = rotations(positions, 1.0 / 100 ** (torch.arange(0, 8, 2) / 8))
    theirs, _ = apply_rotary_pos_emb(query, query, cos[:, 0], sin[:, 0], unsqueeze_dim=1)
    torch.testing.assert_close(rotate(query, cos, sin), theirs)
