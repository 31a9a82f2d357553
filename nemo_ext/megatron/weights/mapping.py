"""A model's tensors in Hugging Face's form and in Megatron's, both ways, by the file of its architecture.

`architecture: decoder` of a family is nemo_ext/megatron/weights/families/decoder.py. Such a file has, as pure functions,
    outer_sizes(shape)              key -> size of each whole Megatron tensor outside the layers, the vocabulary not padded
    layer_sizes(shape, layer)       the same inside one layer: layers may differ
    pieces(shape)                   every tensor of the Hugging Face form, as rows of Megatron's
    canonical_name(name, offset)    a chunk's parameter -> (key, its layer in the whole model, or None)
    shard(key, layer, source, shape, rank, size, padded_vocab)   what one tensor parallel rank holds of a tensor
Layer parameters are named by their checkpoint key (`mlp.linear_fc1.weight`) and a layer index; in a checkpoint all layers of
one key are stacked along a new first dimension, where they are alike. Nothing here is of megatron-core: a machine without it
can average and export.
"""

import importlib
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch

from nemo_ext import plug_ins
from nemo_ext.megatron.weights import families
from nemo_ext.models.shape import ModelShape

EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"
LAYER_PREFIX = "decoder.layers."

Rows = tuple[tuple[int, int], ...]
"""Runs of consecutive rows: (first row, count) each."""


class Source(Protocol):
    """Hugging Face weights by name; `rows` and `columns` are half-open ranges, None for all."""

    def read(
        self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Piece:
    """A Hugging Face tensor and the rows of a Megatron tensor that make it up, in order."""

    name: str
    size: tuple[int, ...]
    key: str
    """The Megatron tensor's name; inside a layer without LAYER_PREFIX."""
    layer: int | None
    rows: Rows

    @property
    def num_elements(self) -> int:
        return math.prod(self.size)


def mapping_of(shape: ModelShape) -> ModuleType:
    """The file of the model's architecture.

    Raises:
        ValueError: there is none, as of a model that is for servers alone.
    """
    name, known = shape.family.architecture, plug_ins.names(families)
    if name not in known:
        raise ValueError(
            f"model_type={shape.model_type}: tensors of its architecture {name!r} are not read here; those of {known} are"
        )
    return importlib.import_module(f"{families.__name__}.{name}")
