"""Checkpoints as Hugging Face folders: no GPU, no process group, a few rows of each tensor in memory at a time."""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from nemo_ext.megatron.checkpoint_files import require_head, require_whole
from nemo_ext.megatron.checkpoint_folders import PARTIAL, check_space
from nemo_ext.megatron.weights.blocks import CheckpointWeights
from nemo_ext.megatron.weights.hf import INDEX, SINGLE
from nemo_ext.megatron.weights.mapping import Piece, mapping_of
from nemo_ext.models.head import Regression, with_labels
from nemo_ext.models.hub_folder import AnswerEnd, name_portable_class, portable_config, read_json, write_answer_end
from nemo_ext.models.safetensors_file import write_safetensors
from nemo_ext.models.shape import ModelShape
from nemo_ext.records.files import fsync_dir, write_json_atomic, write_text_atomic

logger = logging.getLogger(__name__)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
MAX_SHARD_BYTES = 5 * 10**9
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

OnBytes = Callable[[int, int], None]
"""Called now and then with the bytes written and the bytes there are to write."""


def export_hf(
    checkpoint_dir: Path,
    hf_source: Path,
    out_dir: Path,
    dtype: str,
    chat_template: Path | None = None,
    answer_end: AnswerEnd | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Write one checkpoint, saved at any TP/PP, as a Hugging Face folder; see `write_hf`."""
    return write_hf([checkpoint_dir], hf_source, out_dir, dtype, chat_template, answer_end, max_shard_bytes, on_bytes)


def write_hf(
    checkpoint_dirs: Sequence[Path],
    hf_source: Path,
    out_dir: Path,
    dtype: str,
    chat_template: Path | None,
    answer_end: AnswerEnd | None,
    max_shard_bytes: int,
    on_bytes: OnBytes | None,
    record: str | None = None,
) -> Path:
    """Write the mean of the checkpoints as `<out_dir>/model*.safetensors` in `dtype`: bf16, fp16 or fp32.

    Each weight is the fp32 main parameter where a checkpoint has it; the mean is taken in fp32 and rounded once.
    config.json, the tokenizer and generation_config.json come from `hf_source`; `chat_template`, a jinja file,
    replaces the tokenizer's, and `answer_end` (ChatTokenizer.answer_end) is added to the end tokens that they name:
    servers stop there; `record`, a file name, gets what was read. Vocabulary padding is left out and tied embeddings
    are written once. A regression head that the checkpoints were trained with is transformers' `score`, and config.json
    names the class that has it. `out_dir` appears when it is complete and is replaced if it is there. Returns `out_dir`.

    Raises:
        ValueError: an unknown dtype, a checkpoint that does not fit the source's config, or one that is not what was saved.
        OSError: the disk has not enough room; nothing has been written.
    """
    check_dtype(dtype)
    shape = require_head(checkpoint_dirs, ModelShape.from_hf(hf_source))
    weights = CheckpointWeights(checkpoint_dirs, shape)
    weights.warn_of_rounded()
    for folder in checkpoint_dirs:
        require_whole(folder)
    described = None if record is None else (record, {"dtype": dtype, "checkpoints": weights.describe()})
    options = (chat_template, answer_end, max_shard_bytes, on_bytes)
    write_folder(weights, shape, hf_source, out_dir, dtype, *options, record=described)
    logger.info("exported %s to %s (%s)", ", ".join(map(str, checkpoint_dirs)), out_dir, dtype)
    return out_dir


class Weights(Protocol):
    """Where a folder's tensors come from."""

    def blocks(self, pieces: Iterable[Piece], dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The pieces' elements in order, a few rows at a time, contiguous in `dtype`."""
        ...


def check_dtype(dtype: str) -> None:
    """Raises ValueError for a dtype that no folder is written in."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: it may be one of {sorted(DTYPES)}")


def write_folder(
    weights: Weights,
    shape: ModelShape,
    hf_source: Path,
    out_dir: Path,
    dtype: str,
    chat_template: Path | None,
    answer_end: AnswerEnd | None,
    max_shard_bytes: int,
    on_bytes: OnBytes | None,
    record: tuple[str, dict[str, Any]] | None = None,
) -> None:
    """Write a Hugging Face folder of weights that come in blocks; see `write_hf`. `record`: a file's name and content."""
    partial = out_dir.with_name(out_dir.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    check_space(partial, shape.num_parameters * DTYPES[dtype].itemsize, "the exported model", "make room")
    _write_weights(partial, weights, list(mapping_of(shape).pieces(shape)), DTYPES[dtype], max_shard_bytes, on_bytes)
    _write_config(partial, hf_source, DTYPES[dtype])
    _copy_companions(partial, hf_source, chat_template)
    name_portable_class(partial)
    write_answer_end(partial, answer_end or AnswerEnd())
    if isinstance(shape.head, Regression):
        _write_classifier(partial, shape, shape.head)
    if record is not None:
        write_json_atomic(partial / record[0], record[1])
    fsync_dir(partial)
    if out_dir.exists():
        shutil.rmtree(out_dir)
    partial.rename(out_dir)
    fsync_dir(out_dir.parent)


def _write_weights(
    folder: Path,
    weights: Weights,
    tensors: list[Piece],
    dtype: torch.dtype,
    limit: int,
    on_bytes: OnBytes | None,
) -> None:
    shards = list(_shards(tensors, limit // dtype.itemsize))
    total = sum(piece.num_elements for piece in tensors) * dtype.itemsize
    weight_map: dict[str, str] = {}
    done = 0

    def counted(shard: list[Piece]) -> Iterator[torch.Tensor]:
        nonlocal done
        for block in weights.blocks(shard, dtype):
            yield block
            done += block.nbytes
            if on_bytes is not None:
                on_bytes(done, total)

    for number, shard in enumerate(shards, start=1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        by_name = sorted(shard, key=lambda piece: piece.name)
        write_safetensors(folder / name, {piece.name: piece.size for piece in by_name}, dtype, counted(by_name))
        weight_map |= {piece.name: name for piece in shard}
    if len(shards) > 1:
        write_json_atomic(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(tensors: list[Piece], limit: int) -> Iterator[list[Piece]]:
    """Runs of pieces of at most `limit` elements together, or of one."""
    shard: list[Piece] = []
    filled = 0
    for piece in tensors:
        if shard and filled + piece.num_elements > limit:
            yield shard
            shard, filled = [], 0
        shard.append(piece)
        filled += piece.num_elements
    yield shard


def _write_config(folder: Path, source: Path, dtype: torch.dtype) -> None:
    config = read_json(source / "config.json")
    write_json_atomic(folder / "config.json", portable_config(config, str(dtype).removeprefix("torch.")))


def _write_classifier(folder: Path, shape: ModelShape, head: Regression) -> None:
    """The config of a regression head, in whose terms transformers looks for the last token."""
    assert shape.family.classifier is not None, "a shape has such a head only where its family has a classifier"
    config = read_json(folder / "config.json")
    write_json_atomic(folder / "config.json", with_labels(config, shape.family.classifier, head.outputs))


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
