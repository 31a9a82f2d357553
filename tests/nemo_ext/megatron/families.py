"""Tiny models of each family, and what the ranks of test_families.py run on them."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.nemo_ext.megatron.tiny import LLAMA31_ROPE, PLAIN_ROPE

COMMON: dict[str, Any] = {
    "vocab_size": 250,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "rope_parameters": PLAIN_ROPE,
    "tie_word_embeddings": False,
    "initializer_range": 0.1,
    "rms_norm_eps": 1e-5,
}
FAMILIES: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama31": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA31_ROPE}),
    "tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"use_sliding_window": False, "rms_norm_eps": 1e-6}),
    "qwen2_tied": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True, "use_sliding_window": False}),
    "mistral": (MistralConfig, MistralForCausalLM, {"head_dim": 6, "sliding_window": None}),
    "deepseek": (
        LlamaConfig,
        LlamaForCausalLM,
        {"num_key_value_heads": 8, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e5, "factor": 4.0}},
    ),
}
"""deepseek: one key-value head per query head and linear rope scaling, as deepseek-coder; mistral: heads that together
are wider than the hidden size."""


def save_family(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Path:
    """A model whose norms and biases are neither all 0 nor all 1, with tokens.json and, in fp32, its logits.pt."""
    config, model_class, changes = FAMILIES[name]
    torch.manual_seed(len(name))
    model = model_class(config(**(COMMON | changes)))
    for key, parameter in model.named_parameters():
        if "norm" in key or key.endswith(".bias"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model = model.to(dtype).eval()
    model.save_pretrained(folder)
    tokens = torch.randint(0, 250, (1, 120), generator=torch.Generator().manual_seed(3))
    (folder / "tokens.json").write_text(json.dumps(tokens[0].tolist()))
    if dtype == torch.float32:
        with torch.no_grad():
            torch.save(model(tokens).logits, folder / "logits.pt")
    return folder


def check(argument: dict[str, Any]) -> dict[str, Any]:
    """Logits at the topologies, as programs.logits gives them, and a checkpoint of each model at each of them.

    Models in `bf16` are loaded in bf16, at the topologies in `bf16_cases`, and have no logits. Returns {"logits": [...]}.
    """
    import nemo_ext.megatron.runtime.parallel as parallel
    from nemo_ext.megatron.checkpoint_files import write_record
    from nemo_ext.megatron.runtime.mcore import PendingSave
    from tests.nemo_ext.megatron import programs

    found = programs.logits({"cases": argument["cases"], "folders": argument["fp32"]})
    for case in argument["cases"]:
        for precision in ("fp32", "bf16") if case in argument["bf16_cases"] else ("fp32",):
            settings = programs.sizes(**case, precision=precision)
            here = parallel.initialize(settings)
            for folder in map(Path, argument[precision]):
                model = programs.load(settings, here, folder)
                out = checkpoint(Path(argument["out"]), case, folder)
                if here.rank == 0:
                    out.mkdir(parents=True)
                torch.distributed.barrier()
                PendingSave({"model": model.sharded_state_dict()}, out, in_background=False).finish()
                torch.distributed.barrier()
                if here.rank == 0:
                    write_record(out, {})
            parallel.leave_groups()
    return {"logits": found}


def checkpoint(out: Path, case: dict[str, int], folder: Path) -> Path:
    topology = "_".join(f"{name}{size}" for name, size in case.items())
    return out / folder.parent.name / folder.name / topology
