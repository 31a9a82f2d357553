"""The sizes of a model, read from a Hugging Face config.json. Light imports only: the planner reads this."""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from nemo_ext.models.family import Family, family_of
from nemo_ext.models.head import Head, Regression, Vocabulary, head_of, head_of_config
from nemo_ext.models.hub_folder import DEFAULT_THETA, check_rope, read_json
from nemo_ext.models.layer_cost import LayerCost

NEEDED = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3.1's "llama3" scaling: low frequencies are divided by `factor`, high ones kept, the rest interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    @classmethod
    def linear(cls, factor: float) -> Self:
        """All frequencies divided by `factor`: with no original positions every frequency counts as low."""
        return cls(factor=factor, low_freq_factor=1.0, high_freq_factor=2.0, original_max_positions=0)


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a checkpoint's tensors look like. Sizes are in elements; `vocab_size` is without any padding."""

    model_type: str = "llama"
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
    """The output layer is the embedding; never with a regression head, which nothing is tied to."""
    qkv_bias: bool = False
    """Query, key and value projections have biases (Qwen2)."""
    sliding_window: int | None = None
    """Tokens each token attends to, itself included; None: all before it. A longer sample would need windowed
    attention."""
    init_std: float = 0.02
    head: Head = field(default_factory=Vocabulary)
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What config.json says for the family's `extra_keys`."""

    @classmethod
    def from_hf(cls, folder: Path) -> Self:
        """Read `<folder>/config.json`, in the transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`)
        form.

        Raises:
            ValueError: not a folder with a config, another architecture, or a variant this mapping would get wrong.
        """
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{folder} has no config.json: give the folder of a Hugging Face checkpoint")
        config = read_json(path)
        try:
            family = family_of(config.get("model_type"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        _check_supported(path, config, family)
        config = {**family.defaults, **config}
        heads, head = config["num_attention_heads"], head_of_config(config)
        return cls(
            model_type=config["model_type"],
            num_layers=config["num_hidden_layers"],
            hidden_size=config["hidden_size"],
            ffn_size=config["intermediate_size"],
            num_heads=heads,
            num_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab_size=config["vocab_size"],
            max_positions=config["max_position_embeddings"],
            norm_eps=config.get("rms_norm_eps", 1e-6),
            tied_embeddings=config.get("tie_word_embeddings", False) and head == Vocabulary(),
            qkv_bias=family.qkv_bias,
            sliding_window=config["sliding_window"] if family.has_sliding_window else None,
            init_std=config.get("initializer_range", 0.02),
            head=head,
            extra={key: config[key] for key in family.extra_keys},
            **_rope(path, config),
        )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of dataclasses.asdict."""
        scaling = fields["rope_scaling"]
        head = head_of(fields.get("head"))
        return cls(**{**fields, "rope_scaling": RopeScaling(**scaling) if scaling else None, "head": head})

    def with_head(self, head: Head) -> Self:
        """The same model with this head in place of its output layer.

        Raises:
            ValueError: it has another head already, whose weights would be lost, or its family knows of no other.
        """
        if head == self.head:
            return self
        if self.head != Vocabulary():
            raise ValueError(
                f"the start model has a {self.head}, and a {head} is wanted: take a language model, or one with that head"
            )
        if self.family.classifier is None:
            raise ValueError(
                f"model_type={self.model_type} is not supported with a {head}: its family has no classifier"
            )
        return replace(self, head=head, tied_embeddings=False)

    @property
    def num_parameters(self) -> int:
        """Trainable parameters, tied embeddings counted once."""
        layers = LayerCost.total(self.layers)
        embeddings = (self.vocab_size + (0 if self.tied_embeddings else self.output_rows)) * self.hidden_size
        return layers.split_parameters + layers.whole_parameters + embeddings + self.hidden_size

    @cached_property
    def layers(self) -> list[LayerCost]:
        """The cost of each layer, first to last, by the file of the model's architecture.

        Raises:
            ValueError: the file lists more or fewer than `num_layers`.
        """
        file = importlib.import_module(f"nemo_ext.models.architectures.{self.family.architecture}")
        costs: list[LayerCost] = file.layers(self)
        if len(costs) != self.num_layers:
            raise ValueError(f"num_hidden_layers={self.num_layers}, but {file.__name__} lists {len(costs)} layers")
        return costs

    @property
    def output_rows(self) -> int:
        """Numbers that the head gives for each token, the vocabulary not padded."""
        return self.head.outputs if isinstance(self.head, Regression) else self.vocab_size

    @property
    def family(self) -> Family:
        return family_of(self.model_type)

    def padded_vocab(self, multiple: int) -> int:
        """`vocab_size` rounded up to `multiple` (make_vocab_size_divisible_by x tensor parallel size)."""
        return math.ceil(self.vocab_size / multiple) * multiple


def _check_supported(path: Path, config: dict[str, Any], family: Family) -> None:
    missing = [key for key in (*NEEDED, *family.extra_keys) if key not in {**family.defaults, **config}]
    if missing:
        raise ValueError(f"{path}: it has no {', '.join(missing)}")
    for key, allowed in family.only.items():
        if config.get(key) is not None and config[key] not in allowed:
            may = f"it may be {allowed[0]!r} or absent" if allowed else "use a checkpoint without it"
            raise ValueError(f"{path}: {key}={config[key]!r} is not supported; {may}")
    if set(config.get("layer_types") or ()) - {"full_attention"}:
        kinds = sorted(set(config["layer_types"]))
        raise ValueError(f"{path}: layer_types={kinds} is not supported; it may be 'full_attention' throughout")


def _rope(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Rope base and scaling from either config form."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or config.get("rope_theta") or DEFAULT_THETA
    kind = rope.get("rope_type") or rope.get("type") or "default"
    check_rope(path, kind, rope)
    if kind == "default":
        scaling = None
    elif kind == "linear":
        scaling = RopeScaling.linear(float(rope["factor"]))
    elif kind == "llama3":
        scaling = RopeScaling(
            factor=float(rope["factor"]),
            low_freq_factor=float(rope["low_freq_factor"]),
            high_freq_factor=float(rope["high_freq_factor"]),
            original_max_positions=int(rope["original_max_position_embeddings"]),
        )
    else:
        raise ValueError(f"{path}: rope_type={kind!r} is not supported; it may be 'default', 'linear' or 'llama3'")
    return {"rope_theta": float(theta), "rope_scaling": scaling}
