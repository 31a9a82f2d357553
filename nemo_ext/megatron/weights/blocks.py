"""The weights of one or several checkpoints as a stream of blocks: their fp32 mean, rounded once."""

import logging
import math
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from nemo_ext.megatron.checkpoint_folders import step_of
from nemo_ext.megatron.weights.mapping import EMBEDDING, LAYER_PREFIX, OUTPUT, Piece, Rows, mapping_of
from nemo_ext.megatron.weights.torch_dist import TorchDistReader
from nemo_ext.models.shape import ModelShape

logger = logging.getLogger(__name__)
BLOCK = 2**20
"""Elements per block at most (4 MB in fp32), unless one row has more. Larger ones leave the processor's caches."""
MAX_THREADS = 8
"""Blocks worked on at a time. Each takes three times its fp32 size of memory, and a finished one waits in turn."""


class CheckpointWeights:
    """The mean of one model's checkpoints: the sum runs in fp32 in the order given. Of one, it is the checkpoint."""

    def __init__(self, folders: Sequence[Path], shape: ModelShape) -> None:
        """Raises ValueError when a checkpoint is incomplete, or not one of `shape`; all before a weight is read."""
        if not folders:
            raise ValueError("checkpoint_dirs is empty: give at least one checkpoint")
        self.readers = [TorchDistReader(folder) for folder in folders]
        for reader in self.readers:
            _check(reader, shape)

    def blocks(self, pieces: Iterable[Piece], dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The pieces' elements in order, a few rows at a time, contiguous in `dtype`; each is read once."""
        threads = min(MAX_THREADS, os.cpu_count() or 1)
        ahead: deque[Future[torch.Tensor]] = deque()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for piece in pieces:
                for rows in row_blocks(piece):
                    ahead.append(pool.submit(self.read, piece, rows, dtype))
                    if len(ahead) > threads:
                        yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def read(self, piece: Piece, rows: Rows, dtype: torch.dtype) -> torch.Tensor:
        """Rows of one Megatron tensor, run after run: [number of rows, ...] in `dtype`."""
        total = torch.empty(sum(count for _, count in rows), *piece.size[1:])
        at = 0
        for start, count in rows:
            part = total[at : at + count]
            part.copy_(_read(self.readers[0], piece, start, count))
            for reader in self.readers[1:]:
                part += _read(reader, piece, start, count)
            at += count
        if len(self.readers) > 1:
            total /= len(self.readers)
        return total.to(dtype)

    def warn_of_rounded(self) -> None:
        """Say so in the log when a checkpoint lacks the optimizer's fp32 weights: those read in their place were rounded
        after every step, which costs an average most of what it gains."""
        for reader in self.readers:
            precision = _precision(reader)
            if re.search(r"\bweights in (bfloat16|float16)", precision):
                logger.warning(
                    "%s: read as %s, not as the optimizer's fp32 weights, which are not there as whole tensors "
                    "(saved without the optimizer, or as dp_reshardable or fully_sharded_model_space)",
                    reader.folder,
                    precision,
                )

    def describe(self) -> list[dict[str, Any]]:
        """The folder and step of each checkpoint, and what of it is read."""
        return [
            {"path": str(reader.folder), "step": step_of(reader.folder), "precision": _precision(reader)}
            for reader in self.readers
        ]


def row_blocks(piece: Piece) -> Iterator[Rows]:
    """The piece's rows, in order, in blocks of at most BLOCK elements."""
    most = max(1, BLOCK // math.prod(piece.size[1:]))
    block: list[tuple[int, int]] = []
    room = most
    for start, count in piece.rows:
        while count:
            taken = min(count, room)
            block.append((start, taken))
            start, count, room = start + taken, count - taken, room - taken
            if not room:
                yield tuple(block)
                block, room = [], most
    if block:
        yield tuple(block)


def _read(reader: TorchDistReader, piece: Piece, start: int, count: int) -> torch.Tensor:
    """Rows of what the checkpoint has of a piece's Megatron tensor in the highest precision."""
    tail = piece.size[1:]
    offsets, sizes = (start, *[0] * len(tail)), (count, *tail)
    if piece.layer is None:
        return reader.read(reader.main_key(piece.key), offsets, sizes)
    stacked = LAYER_PREFIX + piece.key
    if stacked in reader.tensors:
        return reader.read(reader.main_key(stacked), (piece.layer, *offsets), (1, *sizes))[0]
    return reader.read(reader.main_key(_layer_key(piece.key, piece.layer)), offsets, sizes)


def _layer_key(key: str, layer: int) -> str:
    """Where layers differ, as with some in bf16 and some in fp8, megatron-core does not stack them."""
    return f"{LAYER_PREFIX}{layer}.{key}"


def _check(reader: TorchDistReader, shape: ModelShape) -> None:
    """Raises ValueError unless the checkpoint holds exactly the model's tensors, whole."""
    mapping = mapping_of(shape)
    expected: dict[str, tuple[int, ...]] = dict(mapping.outer_sizes(shape))
    sizes: dict[str, dict[int, tuple[int, ...]]] = {}
    for layer in range(shape.num_layers):
        for key, size in mapping.layer_sizes(shape, layer).items():
            sizes.setdefault(key, {})[layer] = size
    for key, by_layer in sizes.items():
        first, alike = next(iter(by_layer)), len(by_layer) == shape.num_layers and len(set(by_layer.values())) == 1
        if alike and _layer_key(key, first) not in reader.tensors:
            expected[LAYER_PREFIX + key] = (shape.num_layers, *by_layer[first])
        else:
            expected |= {_layer_key(key, layer): size for layer, size in by_layer.items()}
    for key, size in expected.items():
        found = reader.size(key) if key in reader.tensors else None
        padded = key in (EMBEDDING, OUTPUT) and found is not None and found[0] >= size[0] and found[1:] == size[1:]
        if found != size and not padded:
            raise ValueError(f"{reader.folder}: {key} is {found}, but the source's config.json makes it {size}")
    unexpected = sorted(set(reader.weights) - set(expected))
    if unexpected:
        raise ValueError(f"{reader.folder}: {', '.join(unexpected[:3])}: the source's config.json has no such tensor")
    reader.check_files(reader.main_key(key) for key in expected)


def _precision(reader: TorchDistReader) -> str:
    kinds = set()
    for key in reader.weights:
        main = reader.main_key(key)
        kinds.add(f"{'weights' if main == key else 'main parameters'} in {str(reader.dtype(main)).split('.')[-1]}")
    return ", ".join(sorted(kinds))
