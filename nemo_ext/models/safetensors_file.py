"""Safetensors files: written a block of rows at a time, and their headers checked before anything is read.

A file is the header's length (8 bytes, little-endian), the header (JSON, padded with spaces to a multiple of 8), and
the tensors' bytes one after another. The order is the safetensors library's, by name, so that a file is equal byte for
byte to what its `save_file` writes of the same tensors.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
MAX_HEADER = 100_000_000
"""Bytes; the library refuses more."""


def write_safetensors(
    path: Path, sizes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, blocks: Iterable[torch.Tensor]
) -> None:
    """Write tensors of these names and sizes, sorted by name; `blocks` are their elements in that order, cut anywhere.

    Memory: one block. The file is synced when this returns.
    """
    header = _header(sizes, dtype)
    expected = len(header) + dtype.itemsize * sum(math.prod(size) for size in sizes.values())
    with path.open("wb", buffering=0) as file:
        _write(file.fileno(), memoryview(header))
        for block in blocks:
            assert block.dtype == dtype and block.is_contiguous(), f"a block of {path.name} is {block.dtype}"
            _write(file.fileno(), block.flatten().view(torch.uint8).numpy().data)
        assert file.tell() == expected, f"{path.name}: {file.tell()} bytes written, the header says {expected}"
        os.fsync(file.fileno())


@dataclass(frozen=True)
class Entry:
    """A tensor of a file."""

    dtype: str
    """The format's name: F32, BF16, ..."""
    size: tuple[int, ...]
    offset: int
    """Bytes from the start of the file."""


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor names and sizes; raises as `read_entries`."""
    return {name: entry.size for name, entry in read_entries(path).items()}


def read_entries(path: Path) -> dict[str, Entry]:
    """The file's tensors by name.

    Raises:
        ValueError: no such file, no safetensors file, or one that ends before its tensors do.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if total < 8 or length > min(MAX_HEADER, total - 8):
            raise ValueError(f"{path} is cut short or no safetensors file: {total} bytes, and a header of {length}")
        try:
            tensors = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{path} is not a safetensors file: its header is not JSON ({error})") from error
    tensors.pop("__metadata__", None)
    for name, entry in tensors.items():
        end = 8 + length + entry["data_offsets"][1]
        if end > total:
            raise ValueError(f"{path} is cut short: tensor {name} ends at byte {end}, the file has {total}")
    return {
        name: Entry(entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in tensors.items()
    }


def _header(sizes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(sizes):
        start, end = end, end + dtype.itemsize * math.prod(sizes[name])
        entries[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(sizes[name]), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
