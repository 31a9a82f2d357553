"""Read and write torch_dist checkpoints a slice at a time, with plain torch: no megatron, no process group.

A torch_dist checkpoint is torch.distributed.checkpoint's own format. megatron-core stacks a parameter's layers along a
new first dimension, so one tensor of a large model can be hundreds of GB: everything here goes slice by slice,
whatever TP/PP it was saved at.
"""

import io
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    ReadItem,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

MAX_BLOCK = 2**28
"""Elements per slice at most (1 GB in fp32)."""

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Offsets and sizes of a slice."""


class _SlicePlanner(DefaultLoadPlanner):
    """Directs what the reader finds into one tensor that stands for a slice."""

    def __init__(self, target: torch.Tensor, offsets: Sequence[int]) -> None:
        super().__init__()
        self.target, self.offsets = target, offsets

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        view = self.target
        for dim, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            view = view.narrow(dim, start, length)
        return view

    def commit_tensor(self, read_item: ReadItem, tensor: torch.Tensor) -> None:
        pass  # the view was written in place


class TorchDistReader:
    """The tensors of one checkpoint by key."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError when `folder` is no complete torch_dist checkpoint."""
        self.folder = folder
        if not (folder / ".metadata").is_file():
            raise ValueError(f"{folder} has no .metadata: it is not a complete torch_dist checkpoint")
        self._reader = FileSystemReader(folder)
        try:
            metadata = self._reader.read_metadata()
        except (pickle.UnpicklingError, EOFError) as error:
            raise ValueError(f"{folder}/.metadata is damaged ({error}): use another checkpoint") from error
        self._reader.set_up_storage_reader(metadata, is_coordinator=True)
        tensors = metadata.state_dict_metadata.items()
        self.tensors = {key: value for key, value in tensors if isinstance(value, TensorStorageMetadata)}

    @property
    def weights(self) -> list[str]:
        """Keys of the model's own tensors, sorted."""
        return sorted(key for key in self.tensors if not key.startswith("optimizer."))

    def main_key(self, key: str) -> str:
        """Where the fp32 copy of a weight is: in the optimizer's state if it kept one, else the weight itself."""
        for prefix in ("optimizer.state.param.", "optimizer.state.fp32_param."):
            if prefix + key in self.tensors:
                return prefix + key
        return key

    def size(self, key: str) -> tuple[int, ...]:
        return tuple(self.tensors[key].size)

    def dtype(self, key: str) -> torch.dtype:
        return self.tensors[key].properties.dtype

    def read(self, key: str, offsets: Sequence[int] | None = None, sizes: Sequence[int] | None = None) -> torch.Tensor:
        """A slice, by default all, of one tensor, in its stored dtype on the CPU."""
        stored = self.tensors[key]
        offsets = offsets or (0,) * len(stored.size)
        chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes or stored.size))
        target = torch.empty(chunk.sizes, dtype=stored.properties.dtype)
        plan = LoadPlan(create_read_items_for_chunk_list(key, stored, [chunk]))
        self._reader.read_data(plan, _SlicePlanner(target, offsets)).wait()
        return target


def blocks(size: Sequence[int], stacked: bool) -> Iterator[Box]:
    """Slices that tile a tensor: one per layer of a stacked one, none of more than MAX_BLOCK elements if rows
    allow."""
    yield from _split(tuple(size), 0, (0,) * len(size), tuple(size), force=stacked)


def _split(
    size: tuple[int, ...], dim: int, offsets: tuple[int, ...], sizes: tuple[int, ...], force: bool
) -> Iterator[Box]:
    count = math.prod(sizes)
    if dim == len(size) or (count <= MAX_BLOCK and not force):
        yield offsets, sizes
        return
    rows = 1 if force else max(1, MAX_BLOCK // (count // sizes[dim]))
    for start in range(0, size[dim], rows):
        length = min(rows, size[dim] - start)
        at = (*offsets[:dim], start, *offsets[dim + 1 :])
        part = (*sizes[:dim], length, *sizes[dim + 1 :])
        yield from _split(size, dim + 1, at, part, force=False)


class _StreamingPlanner(SavePlanner):
    """Computes each slice when the writer asks for it, so only one is in memory at a time."""

    def __init__(
        self, sizes: Mapping[str, Sequence[int]], dtype: torch.dtype, compute: Callable[[str, Box], torch.Tensor]
    ) -> None:
        self.compute = compute
        self.boxes: dict[MetadataIndex, Box] = {}
        self.items = []
        for key, size in sizes.items():
            for number, box in enumerate(blocks(size, stacked=key.startswith("decoder.layers."))):
                index = MetadataIndex(key, box[0], number)
                self.boxes[index] = box
                self.items.append(_write_item(index, box, size, dtype))

    def set_up_planner(self, state_dict: Any, storage_meta: Any = None, is_coordinator: bool = False) -> None:
        pass  # the plan was made from the sizes

    def create_local_plan(self) -> SavePlan:
        return SavePlan(self.items)

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        return create_default_global_save_plan(all_plans)

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        return self.compute(write_item.index.fqn, self.boxes[write_item.index])


def _write_item(index: MetadataIndex, box: Box, size: Sequence[int], dtype: torch.dtype) -> WriteItem:
    chunk = ChunkStorageMetadata(torch.Size(box[0]), torch.Size(box[1]))
    return WriteItem(
        index=index,
        type=WriteItemType.SHARD,
        tensor_data=TensorWriteData(chunk=chunk, properties=TensorProperties(dtype=dtype), size=torch.Size(size)),
    )


def write_streaming(
    folder: Path, sizes: Mapping[str, Sequence[int]], dtype: torch.dtype, compute: Callable[[str, Box], torch.Tensor]
) -> None:
    """Write a torch_dist checkpoint into `folder`; `compute(key, (offsets, sizes))` gives each slice in turn."""
    writer = FileSystemWriter(folder, single_file_per_rank=True, sync_files=True, thread_count=1)
    dcp.save({}, storage_writer=writer, planner=_StreamingPlanner(sizes, dtype, compute), no_dist=True)
