"""The sizes of a Llama model, read from a Hugging Face config.json. Light imports only: the planner reads this too."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

SUPPORTED = ("llama",)


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3.1's "llama3" scaling: low frequencies are divided by `factor`, high ones kept, the rest interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a Llama checkpoint's tensors look like. Sizes are in elements; `vocab_size` is without any padding."""

    num_layers: int
    hidden_size: int
    ffn_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    norm_eps: float
    tied_embeddings: bool
    init_std: float = 0.02

    @classmethod
    def from_hf(cls, folder: Path) -> Self:
        """Read `<folder>/config.json`, in the transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`)
        form.

        Raises:
            ValueError: not a folder with a config, another architecture, or a Llama variant this mapping would get
            wrong.
        """
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{folder} has no config.json: give the folder of a Hugging Face checkpoint")
        config = json.loads(path.read_text())
        _check_supported(path, config)
        heads = config["num_attention_heads"]
        return cls(
            num_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            ffn_size=config["intermediate_size"],
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab_size=config["vocab_size"],
            max_positions=config.get("max_position_embeddings", 2048),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            tied_embeddings=config.get("tie_word_embeddings", False),
            init_std=config.get("initializer_range", 0.02),
            **_rope(path, config),
        )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of dataclasses.asdict."""
        scaling = fields["rope_scaling"]
        return cls(**{**fields, "rope_scaling": RopeScaling(**scaling) if scaling else None})

    @property
    def num_parameters(self) -> int:
        """Trainable parameters, tied embeddings counted once."""
        attention = self.hidden_size * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        layer = attention + 3 * self.hidden_size * self.ffn_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size

    def padded_vocab(self, multiple: int) -> int:
        """`vocab_size` rounded up to `multiple` (make_vocab_size_divisible_by x tensor parallel size)."""
        return math.ceil(self.vocab_size / multiple) * multiple


def _check_supported(path: Path, config: dict[str, Any]) -> None:
    if config.get("model_type") not in SUPPORTED:
        raise ValueError(f"{path}: model_type={config.get('model_type')!r} is not supported; it may be {SUPPORTED}")
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise ValueError(f"{path}: {key}=true is not supported; Llama checkpoints without biases are")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{path}: hidden_act={config['hidden_act']!r} is not supported; it may be 'silu'")


def _rope(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Rope base and scaling from either config form; 10000 is transformers' default base for Llama."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return {"rope_theta": float(theta), "rope_scaling": None}
    if kind != "llama3":
        raise ValueError(f"{path}: rope_type={kind!r} is not supported; it may be 'default' or 'llama3'")
    scaling = RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_max_positions=int(rope["original_max_position_embeddings"]),
    )
    return {"rope_theta": float(theta), "rope_scaling": scaling}
