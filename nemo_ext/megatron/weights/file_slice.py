"""Positioned reads that many threads may do at once: nothing is mapped, so memory is what the caller keeps."""

import io
import os
from pathlib import Path

import torch


class OpenFile:
    """A file kept open for reading until the last reference to it is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):  # unless it could not be opened
            os.close(self.descriptor)

    def read_into(self, offset: int, tensor: torch.Tensor) -> None:
        """Fill a contiguous CPU tensor from byte `offset` on.

        Raises:
            ValueError: the file ends before that.
        """
        left = tensor.view(torch.uint8).numpy().data
        while left:
            count = os.preadv(self.descriptor, [left], offset)
            if count == 0:
                raise ValueError(f"{self.path} is cut short: {len(left)} bytes are missing at byte {offset}")
            left, offset = left[count:], offset + count


class FileSlice(io.RawIOBase):
    """A part of a file that looks like a file of its own."""

    def __init__(self, file: OpenFile, offset: int, length: int) -> None:
        super().__init__()
        self.file, self.offset, self.length = file, offset, length
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence] + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self.length - self.position))
        count = os.preadv(self.file.descriptor, [memoryview(buffer)[:wanted]], self.offset + self.position)
        self.position += count
        return count
