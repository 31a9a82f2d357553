"""Megatron's layer and embedding with the dropout of layers/dropout.py in place of their own."""

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.transformer.transformer_layer import TransformerLayer

from nemo_ext.megatron.layers.attention import PackedAttention
from nemo_ext.megatron.layers.dropout import AFTER_ATTENTION, AFTER_MLP, EMBEDDING, dropped, place_of
from nemo_ext.megatron.settings import Optimisation
from nemo_ext.models.shape import ModelShape


class EmbeddingDropout(torch.nn.Module):
    """Drops of the embedding's result; `keys` are the hidden states' of the micro-batch."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.keys: torch.Tensor | None = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values if not self.training else dropped(values, self.keys, EMBEDDING, self.probability)


class DropoutLayer(TransformerLayer):
    """A layer that drops of what attention and MLP give, before it is added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keys: torch.Tensor | None = None
        self.self_attn_bda = self._bias_dropout_add(AFTER_ATTENTION)
        self.mlp_bda = self._bias_dropout_add(AFTER_MLP)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.keys = kwargs["packed_seq_params"].hidden_keys  # each micro-batch's own, also when it is run again
        return super().forward(*args, **kwargs)

    def _bias_dropout_add(self, part: int) -> Callable[[bool, bool], Callable[..., torch.Tensor]]:
        """As megatron.core.fusions.fused_bias_dropout.get_bias_dropout_add."""
        place = place_of(self.layer_number, part)

        def add(with_bias: tuple[torch.Tensor, Any], residual: torch.Tensor, probability: float) -> torch.Tensor:
            values, bias = with_bias
            values = values if bias is None else values + bias
            if self.training:
                values = dropped(values, self.keys, place, probability)
            return residual.to(values.dtype) + values

        return lambda training, fused: add


def require_dropout(settings: Optimisation, shape: ModelShape, chunks: list[torch.nn.Module]) -> None:
    """Raises ValueError when a chunk has no layer that would drop what the settings say, and so would ignore them."""
    for name, kind in (("hidden_dropout", DropoutLayer), ("attention_dropout", PackedAttention)):
        drops = all(any(isinstance(module, kind) for module in chunk.modules()) for chunk in chunks)
        if (probability := getattr(settings, name)) and not drops:
            raise ValueError(
                f"{name}={probability}: the layers of {shape.family.architecture!r} have none; leave it at 0"
            )
