"""All packs of one epoch as two arrays on disk, which every process of a job maps instead of packing for itself.

    <folder>/order.npy   int32 [samples], sample ids, pack after pack
    <folder>/bounds.npy  int64 [packs + 1], where each pack starts in it; written last, so that it says the rest is there

They are a function of (lengths, pack_length, seed, epoch) alone: whoever writes them writes the same bytes, so two
writers do no harm, and no lock is needed, which shared file systems often do not have.
"""

import hashlib
import logging
import time
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from nemo_ext.megatron.data.packing import assign_packs
from nemo_ext.records.files import atomic_open

VERSION = 1  # raised when `build` would make other packs of the same samples
WAIT_S = 900.0  # 14 million samples take a second or two; a busy shared disk may take minutes
POLL_S = 0.5
logger = logging.getLogger(__name__)


class PackIndex:
    """`len(index)` packs; `index.packs(first, end)` are the sample ids of some of them."""

    def __init__(self, order: np.ndarray, bounds: np.ndarray) -> None:
        self.order, self.bounds = order, bounds

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def packs(self, first: int, end: int) -> list[list[int]]:
        bounds = self.bounds[first : end + 1].tolist()
        return [self.order[start:end].tolist() for start, end in pairwise(bounds)]

    @classmethod
    def build(cls, lengths: np.ndarray, pack_length: int, seed: int, epoch: int, shuffle: bool) -> Self:
        """Pack a seeded permutation of all samples (int32 `lengths`, tokens) and shuffle the packs."""
        draw = np.random.default_rng([seed, epoch])
        samples = (draw.permutation(len(lengths)) if shuffle else np.arange(len(lengths))).astype(np.int32)
        places = assign_packs(lengths[samples], pack_length)
        counts = np.bincount(places)
        if shuffle:
            drawn = draw.permutation(len(counts))
            counts = counts[drawn]
            place_of = np.empty(len(drawn), np.int32)
            place_of[drawn] = np.arange(len(drawn), dtype=np.int32)
            places = place_of[places]
        return cls(samples[np.argsort(places, kind="stable")], np.concatenate(([0], np.cumsum(counts))))

    def save(self, folder: Path) -> None:
        for name, array in (("order.npy", self.order), ("bounds.npy", self.bounds)):
            with atomic_open(folder / name) as handle:
                np.save(handle, array)

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """The index in `folder`, memory-mapped; None when it is not there, or not yet.

        Raises:
            ValueError: files that do not belong together.
        """
        try:
            bounds, order = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("bounds", "order"))
        except FileNotFoundError:
            return None
        if int(bounds[-1]) != len(order):
            raise ValueError(
                f"{folder}: bounds.npy ends at {bounds[-1]}, order.npy at {len(order)}: delete the folder"
            )
        return cls(order, bounds)


def index_key(lengths: np.ndarray, pack_length: int, seed: int, shuffle: bool) -> str:
    """16 hex digits that stand for all that an index depends on but the epoch."""
    digest = hashlib.sha256(f"{VERSION}/{pack_length}/{seed}/{shuffle}/".encode())
    digest.update(np.ascontiguousarray(lengths, np.int32).data)
    return digest.hexdigest()[:16]


def wait_for(folder: Path, timeout_s: float = WAIT_S) -> PackIndex:
    """The index another process of the job is writing to `folder`.

    Raises:
        ValueError: it is not there after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while (index := PackIndex.open(folder)) is None:
        if time.monotonic() > deadline:
            raise ValueError(
                f"no packs in {folder} after {timeout_s:.0f} s. The job's first process writes them: did it fail (see "
                "its log), or is this folder not on a disk that all nodes share?"
            )
        time.sleep(min(POLL_S, timeout_s / 10))
    return index
