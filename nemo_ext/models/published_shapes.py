"""Shapes of published models, for planning where their weights are not: a login node, say. Light imports only.

From the config.json of each repository; a folder that exists is always read instead.
"""

from pathlib import Path

from nemo_ext.models.shape import ModelShape, RopeScaling


def _llama(layers: int, hidden: int, ffn: int, heads: int, **other: object) -> ModelShape:
    """A Llama-3.1 (8 key-value heads, heads of 128, 128,256 tokens) unless `other` says otherwise."""
    fields: dict[str, object] = {
        "num_layers": layers,
        "hidden_size": hidden,
        "ffn_size": ffn,
        "num_heads": heads,
        "num_kv_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "max_positions": 131072,
        "rope_theta": 500000.0,
        "rope_scaling": RopeScaling(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
        ),
        "norm_eps": 1e-5,
        "tied_embeddings": False,
    }
    return ModelShape(**(fields | other))  # type: ignore[arg-type]


def _qwen(layers: int, hidden: int, ffn: int, heads: int, groups: int, **other: object) -> ModelShape:
    common = {"model_type": "qwen2", "qkv_bias": True, "rope_theta": 1e6, "rope_scaling": None, "norm_eps": 1e-6}
    return _llama(layers, hidden, ffn, heads, **(common | {"num_kv_heads": groups} | other))


_PLAIN: dict[str, object] = {"rope_theta": 1e4, "rope_scaling": None}


def _llama2(layers: int, hidden: int, ffn: int, heads: int, groups: int, **other: object) -> ModelShape:
    common = {"num_kv_heads": groups, "vocab_size": 32000, "max_positions": 4096}
    return _llama(layers, hidden, ffn, heads, **(common | _PLAIN | other))


def _codellama(*sizes: int, vocab_size: int = 32000) -> ModelShape:
    """Llama 2 trained on with longer samples; the models that fill in the middle have 16 more tokens for it."""
    return _llama2(*sizes, vocab_size=vocab_size, max_positions=16384, rope_theta=1e6)


SHAPES = {
    "Llama-3.1-8B": _llama(32, 4096, 14336, 32),
    "Llama-3.1-70B": _llama(80, 8192, 28672, 64),
    "Llama-3.1-405B": _llama(126, 16384, 53248, 128),
    "Llama-2-7b": _llama2(32, 4096, 11008, 32, 32),
    "Llama-2-70b": _llama2(80, 8192, 28672, 64, 8),
    "CodeLlama-7b": _codellama(32, 4096, 11008, 32, 32, vocab_size=32016),
    "CodeLlama-7b-Python": _codellama(32, 4096, 11008, 32, 32),
    "CodeLlama-13b": _codellama(40, 5120, 13824, 40, 40, vocab_size=32016),
    "CodeLlama-13b-Python": _codellama(40, 5120, 13824, 40, 40),
    "CodeLlama-34b": _codellama(48, 8192, 22016, 64, 8),
    "CodeLlama-70b": _codellama(80, 8192, 28672, 64, 8, vocab_size=32016),
    "deepseek-math-7b": _llama(
        30, 4096, 11008, 32, num_kv_heads=32, vocab_size=102400, max_positions=4096, norm_eps=1e-6, **_PLAIN
    ),
    "Mistral-7B-v0.1": _llama(
        32, 4096, 14336, 32, model_type="mistral", vocab_size=32000, max_positions=32768, sliding_window=4096, **_PLAIN
    ),
    "Mistral-7B-v0.3": _llama(
        32, 4096, 14336, 32, model_type="mistral", vocab_size=32768, max_positions=32768, rope_theta=1e6,
        rope_scaling=None,
    ),
    "Mixtral-8x7B": _llama(
        32, 4096, 14336, 32, model_type="mixtral", vocab_size=32000, max_positions=32768, rope_theta=1e6,
        rope_scaling=None, extra={"num_local_experts": 8, "num_experts_per_tok": 2},
    ),
    "Qwen2.5-1.5B": _qwen(28, 1536, 8960, 12, 2, vocab_size=151936, tied_embeddings=True),
    "Qwen2.5-7B": _qwen(28, 3584, 18944, 28, 4, vocab_size=152064),
    "Qwen2.5-Math-7B": _qwen(28, 3584, 18944, 28, 4, vocab_size=152064, max_positions=4096, rope_theta=1e4),
    "Qwen2.5-72B": _qwen(80, 8192, 29568, 64, 8, vocab_size=152064),
}  # fmt: skip
"""Shapes by repository or folder name; whatever follows it after a dash (Instruct, FP8, a date) has the same shape, unless
that is here by a longer name."""


def shape_of(hf_path: str) -> ModelShape | None:
    """The shape of the model at `hf_path`: its config.json where the folder is here, else by name, else None.

    Raises:
        ValueError: the folder's config.json is of a model that the trainer does not support.
    """
    folder = Path(hf_path)
    if (folder / "config.json").is_file():
        return ModelShape.from_hf(folder)
    return shape_named(hf_path)


def shape_named(hf_path: str) -> ModelShape | None:
    """The shape that the last part of the path names, whatever is there; None: not a known name."""
    name = Path(hf_path).name.removeprefix("Meta-").lower()
    known = [known for known in SHAPES if f"{name}-".startswith(f"{known.lower()}-")]
    return SHAPES[max(known, key=len)] if known else None
