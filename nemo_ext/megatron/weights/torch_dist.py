"""Read torch_dist checkpoints a few rows at a time, with plain torch: no megatron, no process group, no foreign code.

A torch_dist checkpoint is torch.distributed.checkpoint's own format: `.metadata` says which box of which tensor is
where in which file, and each box is stored as torch.save stores a tensor: a zip archive with the bytes in one
uncompressed record. megatron-core stacks a parameter's layers along a new first dimension, so one tensor of a large
model can be hundreds of GB, and one box several: only the bytes asked for are read, whatever TP/PP it was saved at.
(torch.distributed.checkpoint's own reader loads each box whole.)
"""

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorStorageMetadata

from nemo_ext.megatron.weights.dcp_metadata import read_metadata
from nemo_ext.megatron.weights.file_slice import FileSlice, OpenFile

MAIN_PREFIXES = ("optimizer.state.param.", "optimizer.state.fp32_param.")
"""Where the optimizer keeps its fp32 weights: the distributed one, and the other."""
MODEL_PREFIXES = ("embedding.", "decoder.", "output_layer.")
MAX_OPEN = 64
"""Files open at once: a checkpoint of 256 ranks has more than a process may open."""

Numbers = tuple[int, ...]


class TorchDistReader:
    """The tensors of one checkpoint by key. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError when `folder` is no complete torch_dist checkpoint."""
        self.folder = folder
        metadata = read_metadata(folder)
        tensors = metadata.state_dict_metadata.items()
        self.tensors = {key: value for key, value in tensors if isinstance(value, TensorStorageMetadata)}
        self._places: dict[MetadataIndex, Any] = metadata.storage_data
        self._near = lru_cache(512)(self._find_near)
        self._offset = lru_cache(4096)(self._find_offset)
        self._whole = lru_cache(1)(self._load_whole)
        self._open = lru_cache(MAX_OPEN)(OpenFile)

    @property
    def weights(self) -> list[str]:
        """Keys of the model's own tensors, sorted."""
        return sorted(key for key in self.tensors if key.startswith(MODEL_PREFIXES))

    def main_key(self, key: str) -> str:
        """Where the fp32 copy of a weight is: in the optimizer's state if it kept one as large, else the weight."""
        for prefix in MAIN_PREFIXES:
            if prefix + key in self.tensors and self.size(prefix + key) == self.size(key):
                return prefix + key
        return key

    def size(self, key: str) -> Numbers:
        return tuple(self.tensors[key].size)

    def dtype(self, key: str) -> torch.dtype:
        return self.tensors[key].properties.dtype

    def check_files(self, keys: Iterable[str]) -> None:
        """Raises ValueError, naming key and file, when a file that holds a part of `keys` is missing or too short."""
        lengths: dict[Path, int] = {}
        for key in keys:
            for chunk in self.tensors[key].chunks:
                path, start, length = self._place(key, tuple(chunk.offsets))
                if path not in lengths:
                    if not path.is_file():
                        raise ValueError(f"{path}, which holds a part of {key}, is missing: use another checkpoint")
                    lengths[path] = path.stat().st_size
                if lengths[path] < start + length:
                    raise ValueError(
                        f"{path} is cut short: a part of {key} ends at byte {start + length}, the file has "
                        f"{lengths[path]}: use another checkpoint"
                    )

    def read(self, key: str, offsets: Sequence[int] | None = None, sizes: Sequence[int] | None = None) -> torch.Tensor:
        """A box, by default all, of one tensor, in its stored dtype on the CPU.

        Raises:
            ValueError: the file is damaged, or holds something else than its metadata says.
        """
        wanted = tuple(sizes or self.size(key))
        origin = tuple(offsets or (0,) * len(wanted))
        target: torch.Tensor | None = None
        found = 0
        for chunk in self._near(key, origin[0], wanted[0]):
            box = _overlap(origin, wanted, chunk)
            if box is None:
                continue
            starts, lengths = box
            part = self._read_part(key, chunk, [s - o for s, o in zip(starts, chunk.offsets, strict=True)], lengths)
            found += part.numel()
            if lengths == wanted:
                target = part
                break
            target = torch.empty(wanted, dtype=self.dtype(key)) if target is None else target
            target[_slices([s - o for s, o in zip(starts, origin, strict=True)], lengths)] = part
        if target is None or found != math.prod(wanted):
            raise ValueError(f"{self.folder}: {key} has {found} of {math.prod(wanted)} elements at {origin}")
        return target

    def _find_near(self, key: str, start: int, count: int) -> list[ChunkStorageMetadata]:
        """The stored boxes that overlap these rows of the first dimension."""
        return [
            c for c in self.tensors[key].chunks if c.offsets[0] < start + count and start < c.offsets[0] + c.sizes[0]
        ]

    def _read_part(
        self, key: str, chunk: ChunkStorageMetadata, starts: Sequence[int], lengths: Numbers
    ) -> torch.Tensor:
        """A box inside a stored one: the bytes from its first element to its last, which for whole rows is all of it
        and nothing else."""
        offsets = tuple(chunk.offsets)
        offset = self._offset(key, offsets)
        if offset is None:
            return self._whole(key, offsets)[_slices(starts, lengths)].clone()
        strides = torch.empty(chunk.sizes, device="meta").stride()
        first = sum(start * stride for start, stride in zip(starts, strides, strict=True))
        span = 1 + sum((length - 1) * stride for length, stride in zip(lengths, strides, strict=True))
        flat = torch.empty(span, dtype=self.dtype(key))
        path, begin, _ = self._place(key, offsets)
        self._open(path).read_into(begin + offset + first * flat.itemsize, flat)
        return flat.as_strided(lengths, strides)

    def _place(self, key: str, offsets: Numbers) -> tuple[Path, int, int]:
        """File, first byte and number of bytes of a stored box."""
        place = self._places[MetadataIndex(key, offsets)]
        if getattr(place, "transform_descriptors", None):  # older torch has no such field
            raise ValueError(f"{self.folder}: {key} is stored compressed: {place.transform_descriptors}")
        return self.folder / place.relative_path, place.offset, place.length

    def _archive(self, key: str, offsets: Numbers) -> io.BufferedReader:
        path, start, length = self._place(key, offsets)
        return io.BufferedReader(FileSlice(self._open(path), start, length))

    def _find_offset(self, key: str, offsets: Numbers) -> int | None:
        """Where in its archive a stored box's elements begin; None: they are compressed or in another order."""
        archive = self._archive(key, offsets)
        try:
            records = [info for info in zipfile.ZipFile(archive).infolist() if info.filename.endswith("/data/0")]
            archive.seek(0)
            tensor = torch.load(archive, map_location="meta", weights_only=True)
        except (zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise ValueError(f"{self._place(key, offsets)[0]}: {key} is damaged ({error})") from error
        chunk = next(c for c in self.tensors[key].chunks if tuple(c.offsets) == offsets)
        if tensor.shape != chunk.sizes or tensor.dtype != self.dtype(key):
            raise ValueError(
                f"{self._place(key, offsets)[0]}: {key} at {offsets} is {tuple(tensor.shape)} {tensor.dtype}, the "
                f"checkpoint's metadata says {tuple(chunk.sizes)} {self.dtype(key)}"
            )
        (record,) = records
        first = tensor.storage_offset() * tensor.itemsize
        if record.compress_type != zipfile.ZIP_STORED or not tensor.is_contiguous():
            return None
        assert first + tensor.nbytes <= record.file_size, f"{key} is larger than its record"
        archive.seek(record.header_offset + 26)  # a zip entry's own header: 30 bytes, its name, its extra field
        name_length, extra_length = struct.unpack("<HH", archive.read(4))
        return record.header_offset + 30 + name_length + extra_length + first

    def _load_whole(self, key: str, offsets: Numbers) -> torch.Tensor:
        return torch.load(self._archive(key, offsets), map_location="cpu", weights_only=True)


def _overlap(origin: Numbers, sizes: Numbers, chunk: ChunkStorageMetadata) -> tuple[Numbers, Numbers] | None:
    """Offsets, in the whole tensor, and sizes of what a box and a stored box share."""
    starts = tuple(map(max, origin, chunk.offsets))
    ends = [min(a + m, b + n) for a, m, b, n in zip(origin, sizes, chunk.offsets, chunk.sizes, strict=True)]
    lengths = tuple(end - start for start, end in zip(starts, ends, strict=True))
    return (starts, lengths) if min(lengths) > 0 else None


def _slices(starts: Sequence[int], lengths: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
