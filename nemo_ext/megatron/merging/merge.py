"""Merge models into a Hugging Face folder, a few rows at a time: no tensor is ever in memory as a whole."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nemo_ext.megatron.merging.method import Method, Place
from nemo_ext.megatron.merging.sources import ModelSource, require_alike
from nemo_ext.megatron.weights.blocks import MAX_THREADS, row_blocks
from nemo_ext.megatron.weights.export import MAX_SHARD_BYTES, OnBytes, check_dtype, write_folder
from nemo_ext.megatron.weights.mapping import Piece, Rows
from nemo_ext.models.hub_folder import AnswerEnd

RECORD = "merge.json"


class MergedWeights:
    """The tensors of the merged model, in blocks."""

    def __init__(
        self, models: Sequence[ModelSource], base: ModelSource | None, weights: Sequence[float], method: Method
    ) -> None:
        if method.of_differences != (base is not None):
            why = "merges differences from a base: name one" if base is None else "has no use for a base: leave it out"
            raise ValueError(f"method.kind={method.kind} {why}")
        self.models, self.base, self.weights, self.method = list(models), base, list(weights), method

    def blocks(self, pieces: Iterable[Piece], dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The pieces' elements in order, contiguous in `dtype`."""
        threads = min(MAX_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for piece in pieces:
                measured = self.method.measure(partial(self._passes, piece, pool), self.weights)
                merged = partial(self._merged, piece, measured, dtype)
                yield from _in_order(pool, threads, ((merged, block) for block in _blocks(piece)))

    def _passes(self, piece: Piece, pool: ThreadPoolExecutor) -> Iterator[list[torch.Tensor]]:
        def models(block: tuple[int, Rows]) -> list[torch.Tensor]:
            return self._read(piece, block)[0]

        return _in_order(pool, MAX_THREADS, ((models, block) for block in _blocks(piece)))

    def _read(self, piece: Piece, block: tuple[int, Rows]) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Rows of every model, less the base's where there is one, and those of the base."""
        found = [model.read(piece, *block) for model in self.models]
        if self.base is None:
            return found, None
        base = self.base.read(piece, *block)
        return [each.sub_(base) for each in found], base

    def _merged(self, piece: Piece, measured: Any, dtype: torch.dtype, block: tuple[int, Rows]) -> torch.Tensor:
        models, base = self._read(piece, block)
        total = self.method.combine(models, self.weights, measured, Place(piece.name, block[0]))
        return (total if base is None else base.add_(total)).to(dtype).contiguous()


def _blocks(piece: Piece) -> Iterator[tuple[int, Rows]]:
    """The first row of each block in the Hugging Face form, and its rows in Megatron's."""
    first = 0
    for rows in row_blocks(piece):
        yield first, rows
        first += sum(count for _, count in rows)


def _in_order(pool: ThreadPoolExecutor, ahead_at_most: int, work: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
    """function(argument) of each, in order, a few of them at a time."""
    ahead: deque[Future[Any]] = deque()
    for function, argument in work:
        ahead.append(pool.submit(function, argument))
        if len(ahead) > ahead_at_most:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def merge_to_hf(
    models: Sequence[ModelSource],
    base: ModelSource | None,
    weights: Sequence[float],
    method: Method,
    hf_source: Path,
    out_dir: Path,
    dtype: str,
    record: dict[str, Any],
    chat_template: Path | None = None,
    answer_end: AnswerEnd | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_bytes: OnBytes | None = None,
) -> None:
    """Write the merged model as `out_dir`, with config and tokenizer of `hf_source`; merge.json holds `record`.

    Arithmetic is in fp32, the result rounded once to `dtype`.

    Raises:
        ValueError: models of different shapes, a method that does not take these models, an unknown dtype.
    """
    check_dtype(dtype)
    shape = require_alike([*models, *([base] if base is not None else [])])
    merged = MergedWeights(models, base, weights, method)
    options = (chat_template, answer_end, max_shard_bytes, on_bytes)
    write_folder(merged, shape, hf_source, out_dir, dtype, *options, record=(RECORD, record))
