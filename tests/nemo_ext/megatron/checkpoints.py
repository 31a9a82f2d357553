"""torch_dist checkpoints made without training: each stored box as megatron-core writes it, any size, quickly."""

import json
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from nemo_ext.megatron.checkpoint_files import write_record
from nemo_ext.megatron.weights.families.decoder import layer_sizes, outer_sizes
from nemo_ext.megatron.weights.mapping import LAYER_PREFIX
from nemo_ext.models.shape import ModelShape

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Offsets and sizes."""
MAIN = "optimizer.state.param."


def write_boxes(folder: Path, tensors: Mapping[str, Iterable[tuple[Box, torch.Tensor]]], num_files: int = 1) -> Path:
    """Write each tensor as the boxes it comes in; they must tile it. Boxes go to the files in turn."""
    folder.mkdir(parents=True)
    metadata = Metadata({}, storage_data={})
    names = [f"__{number}_0.distcp" for number in range(num_files)]
    files = [(folder / name).open("wb") for name in names]
    written = 0
    checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)  # half the time of writing a large tensor
    for key, boxes in tensors.items():
        chunks, dtype = [], None
        for (offsets, sizes), tensor in boxes:
            name, file = names[written % num_files], files[written % num_files]
            start, dtype, written = file.tell(), tensor.dtype, written + 1
            torch.save(tensor, file)
            index = MetadataIndex(key, torch.Size(offsets))
            metadata.storage_data[index] = _StorageInfo(name, start, file.tell() - start)
            chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        size = [max(c.offsets[i] + c.sizes[i] for c in chunks) for i in range(len(chunks[0].sizes))]
        metadata.state_dict_metadata[key] = TensorStorageMetadata(
            TensorProperties(dtype=dtype), torch.Size(size), chunks
        )
    torch.serialization.set_crc32_options(checksums)
    for file in files:
        file.close()
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    (folder / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist", "sharded_backend_version": 1}))
    write_record(folder, {})
    return folder


def whole(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[tuple[Box, torch.Tensor]]]:
    """Each tensor as one box."""
    return {key: [(((0,) * t.dim(), tuple(t.shape)), t)] for key, t in tensors.items()}


def save_shape(folder: Path, shape: ModelShape) -> Path:
    """A config.json of the shape, in Llama's form."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_model(
    folder: Path, shape: ModelShape, dtype: torch.dtype, main: bool, fill: Callable[[str, int, int], torch.Tensor]
) -> Path:
    """A checkpoint of a model, one box per layer, weights in `dtype` and, with `main`, fp32 copies.

    `fill(key, layer, number of elements)` gives the fp32 values; the layer is 0 outside the layers.
    """

    def boxes(key: str, layers: int, size: tuple[int, ...], kind: torch.dtype) -> Iterator[tuple[Box, torch.Tensor]]:
        for layer in range(layers):
            offsets = (layer, *[0] * len(size)) if key.startswith(LAYER_PREFIX) else (0,) * len(size)
            sizes = (1, *size) if key.startswith(LAYER_PREFIX) else size
            yield (offsets, sizes), fill(key, layer, math.prod(size)).to(kind).reshape(sizes)

    sizes = {key: (1, size) for key, size in outer_sizes(shape).items()}
    sizes |= {LAYER_PREFIX + key: (shape.num_layers, size) for key, size in layer_sizes(shape, 0).items()}
    tensors = {key: boxes(key, layers, size, dtype) for key, (layers, size) in sizes.items()}
    if main:
        tensors |= {MAIN + key: boxes(key, *rest, torch.float32) for key, rest in sizes.items()}
    return write_boxes(folder, tensors)


def cheap_values(checkpoint: int) -> Callable[[str, int, int], torch.Tensor]:
    """Values that differ by checkpoint, key, layer and place, at the cost of a copy."""
    base = torch.randn(2**20 + 7, generator=torch.Generator().manual_seed(checkpoint))

    def fill(key: str, layer: int, count: int) -> torch.Tensor:
        factor = 1.0 + layer + len(key) / 64
        return (base * factor).repeat(count // len(base) + 1)[:count]

    return fill
