"""Tiny Llama checkpoints and data folders for these tests."""

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nemo_ext.megatron.data.token_folder import PackedDataWriter

LLAMA31_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def save_llama(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: object) -> LlamaForCausalLM:
    """A 2-layer grouped-query Llama, untied, written to `folder`; `changes` go to its config."""
    sizes = {
        "vocab_size": 250,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rope_parameters": LLAMA31_ROPE,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
        "rms_norm_eps": 1e-5,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**(sizes | changes)))
    for name, parameter in model.named_parameters():
        if "norm" in name:  # all ones would hide a norm in the wrong place
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model = model.to(dtype).eval()
    model.save_pretrained(folder)
    return model


def save_data(folder: Path, num_samples: int = 64, vocab_size: int = 250, longest: int = 40, seed: int = 0) -> Path:
    """Random samples of 4 to `longest` tokens; the second half of each is trained."""
    rng = np.random.default_rng(seed)
    with PackedDataWriter(folder, {}) as writer:
        for _ in range(num_samples):
            length = int(rng.integers(4, longest + 1))
            tokens = rng.integers(0, vocab_size, length).tolist()
            writer.add(tokens, [0] * (length // 2) + [1] * (length - length // 2))
    return folder
