"""A torch_dist checkpoint as a Hugging Face folder: no GPU, no process group, one shard in memory at a time."""

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from nemo_ext.files import fsync_dir, write_json_atomic, write_text_atomic
from nemo_ext.megatron.hf import INDEX, SINGLE
from nemo_ext.megatron.layout import PARTIAL
from nemo_ext.megatron.mapping import EMBEDDING, FINAL_NORM, LAYER, LAYER_PREFIX, OUTER, OUTPUT, hf_layer_tensors
from nemo_ext.megatron.shape import ModelShape
from nemo_ext.megatron.torch_dist import TorchDistReader

logger = logging.getLogger(__name__)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
COMPANIONS = (
    "tokenizer",
    "special_tokens_map",
    "added_tokens",
    "vocab",
    "merges",
    "generation_config",
    "chat_template",
)
"""Beginnings of the names of files that are taken over from the source."""


@dataclass(frozen=True)
class Piece:
    """One Megatron tensor to write: a key of the checkpoint, and a layer of it or None."""

    key: str
    layer: int | None
    num_elements: int


def export_hf(
    checkpoint_dir: Path,
    hf_source: Path,
    out_dir: Path,
    dtype: str,
    chat_template: Path | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> Path:
    """Write `checkpoint_dir` (trained or averaged, at any TP/PP) as `<out_dir>/model*.safetensors` in `dtype`.

    config.json, the tokenizer and generation_config.json come from `hf_source`; `chat_template`, a jinja file,
    replaces the tokenizer's. Vocabulary padding is left out and tied embeddings are written once. `out_dir` appears
    when it is complete and is replaced if it is there. Returns `out_dir`.

    Raises:
        ValueError: an unknown dtype, or a checkpoint that does not fit the source's config.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: it may be one of {sorted(DTYPES)}")
    shape = ModelShape.from_hf(hf_source)
    reader = TorchDistReader(checkpoint_dir)
    pieces = list(_pieces(reader, shape))
    partial = out_dir.with_name(out_dir.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_weights(partial, reader, shape, pieces, DTYPES[dtype], max_shard_bytes)
    _write_config(partial, hf_source, DTYPES[dtype])
    _copy_companions(partial, hf_source, chat_template)
    fsync_dir(partial)
    if out_dir.exists():
        shutil.rmtree(out_dir)
    partial.rename(out_dir)
    fsync_dir(out_dir.parent)
    logger.info("exported %s to %s (%s)", checkpoint_dir, out_dir, dtype)
    return out_dir


def _pieces(reader: TorchDistReader, shape: ModelShape) -> Iterator[Piece]:
    """Every tensor the model needs, in Hugging Face's order, checked against the config."""
    query, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    hidden, ffn = shape.hidden_size, shape.ffn_size
    inner = {
        "self_attention.linear_qkv.layer_norm_weight": (hidden,),
        "self_attention.linear_qkv.weight": (query + 2 * keys, hidden),
        "self_attention.linear_proj.weight": (hidden, query),
        "mlp.linear_fc1.layer_norm_weight": (hidden,),
        "mlp.linear_fc1.weight": (2 * ffn, hidden),
        "mlp.linear_fc2.weight": (hidden, ffn),
    }
    _check_rows(reader, EMBEDDING, shape)
    yield Piece(EMBEDDING, None, shape.vocab_size * hidden)
    for key, size in inner.items():
        _check(reader, LAYER_PREFIX + key, (shape.num_layers, *size))
    for layer in range(shape.num_layers):
        for key in LAYER:
            yield Piece(key, layer, torch.Size(inner[key]).numel())
    _check(reader, FINAL_NORM, (hidden,))
    yield Piece(FINAL_NORM, None, hidden)
    if not shape.tied_embeddings:
        _check_rows(reader, OUTPUT, shape)
        yield Piece(OUTPUT, None, shape.vocab_size * hidden)


def _check(reader: TorchDistReader, key: str, size: tuple[int, ...]) -> None:
    found = reader.size(key) if key in reader.tensors else None
    if found != size:
        raise ValueError(f"{reader.folder}: {key} is {found}, but the source's config.json makes it {size}")


def _check_rows(reader: TorchDistReader, key: str, shape: ModelShape) -> None:
    found = reader.size(key) if key in reader.tensors else (0, 0)
    if found[0] < shape.vocab_size or found[1] != shape.hidden_size:
        raise ValueError(
            f"{reader.folder}: {key} is {found}, but the source's config.json has vocabulary {shape.vocab_size} "
            f"and hidden size {shape.hidden_size}"
        )


def _tensors(reader: TorchDistReader, piece: Piece, shape: ModelShape) -> dict[str, torch.Tensor]:
    if piece.layer is not None:
        key = LAYER_PREFIX + piece.key
        size = reader.size(key)[1:]
        tensor = reader.read(key, (piece.layer, *[0] * len(size)), (1, *size))[0]
        return hf_layer_tensors(piece.key, piece.layer, tensor, shape)
    if piece.key == FINAL_NORM:
        return {OUTER[FINAL_NORM]: reader.read(FINAL_NORM)}
    return {OUTER[piece.key]: reader.read(piece.key, (0, 0), (shape.vocab_size, shape.hidden_size))}


def _write_weights(
    folder: Path, reader: TorchDistReader, shape: ModelShape, pieces: list[Piece], dtype: torch.dtype, limit: int
) -> None:
    shards: list[list[Piece]] = [[]]
    filled = 0
    for piece in pieces:
        size = piece.num_elements * dtype.itemsize
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(piece)
        filled += size
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {
            key: value.to(dtype).contiguous().clone()
            for piece in shard
            for key, value in _tensors(reader, piece, shape).items()
        }
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        total = sum(piece.num_elements for piece in pieces) * dtype.itemsize
        write_json_atomic(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_config(folder: Path, source: Path, dtype: torch.dtype) -> None:
    config = json.loads((source / "config.json").read_text())
    name = str(dtype).removeprefix("torch.")
    config.pop("torch_dtype", None)  # transformers 4's name for it; 5 reads both, and two could contradict
    config["torch_dtype" if "rope_parameters" not in config else "dtype"] = name
    write_json_atomic(folder / "config.json", config)


def _copy_companions(folder: Path, source: Path, chat_template: Path | None) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name.startswith(COMPANIONS):
            shutil.copyfile(path, folder / path.name)
    if chat_template is None:
        return
    write_text_atomic(folder / "chat_template.jinja", chat_template.read_text())
    settings = folder / "tokenizer_config.json"
    if settings.is_file():  # a template kept inside it, by transformers 4, would compete
        content = json.loads(settings.read_text())
        content.pop("chat_template", None)
        write_json_atomic(settings, content)
