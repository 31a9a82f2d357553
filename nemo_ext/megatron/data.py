"""Tokenised samples on disk, and which of them a training step sees.

A folder that `prepare_sft` wrote holds

    tokens.bin     uint32, every sample's tokens one after another
    loss_mask.bin  uint8, 1 where the token is one the model must learn to produce
    offsets.npy    int64 [n + 1], where each sample starts
    data.json      counts and the tokenizer's hash

It is memory-mapped, and it does not depend on the topology: packs are made per step from (seed, step) alone, so a run
resumes at any step, at any TP/PP/DP, with nothing but the step number, and a step is always `global_batch_size`
*samples*, as the papers count (packing whole files would make it that many packs, ten times the samples).
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from nemo_ext.files import atomic_open, write_json_atomic
from nemo_ext.megatron.packing import best_fit_decreasing


class PackedDataWriter:
    """Streams samples to disk; the folder is readable only once the `with` block has ended (data.json comes last)."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder = folder
        self.facts = facts
        self.offsets = [0]
        self.num_trained_tokens = 0
        self._contexts = [atomic_open(folder / name) for name in ("tokens.bin", "loss_mask.bin")]

    def __enter__(self) -> Self:
        self._tokens, self._mask = (context.__enter__() for context in self._contexts)
        return self

    def add(self, tokens: Sequence[int], loss_mask: Sequence[int]) -> None:
        """One sample: token ids [L] and a 0/1 mask [L] of the tokens to be learnt."""
        assert len(tokens) == len(loss_mask), "one mask entry per token"
        self._tokens.write(np.asarray(tokens, dtype=np.uint32).tobytes())
        self._mask.write(np.asarray(loss_mask, dtype=np.uint8).tobytes())
        self.offsets.append(self.offsets[-1] + len(tokens))
        self.num_trained_tokens += sum(loss_mask)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for context in self._contexts:
            context.__exit__(kind, error, trace)
        if kind is None:
            with atomic_open(self.folder / "offsets.npy") as handle:
                np.save(handle, np.asarray(self.offsets, dtype=np.int64))
            counts = {
                "num_samples": len(self.offsets) - 1,
                "num_tokens": self.offsets[-1],
                "num_trained_tokens": self.num_trained_tokens,
            }
            write_json_atomic(self.folder / "data.json", counts | self.facts)


class PackedData:
    """Memory-mapped samples. `len(data)` is their number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "data.json").read_text())
        self.offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        self.lengths = np.diff(self.offsets).astype(np.int32)
        self._tokens = _map(folder / "tokens.bin", np.uint32)
        self._mask = _map(folder / "loss_mask.bin", np.uint8)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises ValueError when `folder` is not a finished data folder."""
        if not (folder / "data.json").is_file():
            raise ValueError(f"{folder} has no data.json: it is not a finished prepare_sft output")
        return cls(folder)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [L] (uint32) and loss mask [L] (uint8) of one sample."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return self._tokens[start:end], self._mask[start:end]


def _map(path: Path, dtype: type) -> np.ndarray:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")


class Batches:
    """Which samples step `step` trains on, as packs: a pure function of (data, seed, step).

    Each epoch is one seeded permutation; the samples that do not fill the last step of an epoch are left out of that
    epoch (drop_last, as the NeMo-RL guide counts: 950,000 samples at 512 give 1,855 steps).
    """

    def __init__(
        self, data: PackedData, global_batch_size: int, pack_length: int, seed: int, shuffle: bool = True
    ) -> None:
        if len(data) < global_batch_size:
            raise ValueError(
                f"{data.folder} has {len(data)} samples, fewer than global_batch_size={global_batch_size}: "
                "no step can be filled. Lower global_batch_size or give it more rows."
            )
        longest = int(data.lengths.max())
        if longest > pack_length:
            raise ValueError(f"{data.folder} has a sample of {longest} tokens, more than pack_length={pack_length}")
        self.data, self.global_batch_size, self.pack_length = data, global_batch_size, pack_length
        self.seed, self.shuffle = seed, shuffle
        self._permutation = lru_cache(maxsize=2)(self._make_permutation)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data) // self.global_batch_size

    def _make_permutation(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.data))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.data))

    def samples(self, step: int) -> list[int]:
        """The `global_batch_size` sample ids of step `step` (counted from 0), in drawing order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch_size
        return self._permutation(epoch)[start : start + self.global_batch_size].tolist()

    def step(self, step: int) -> list[list[int]]:
        """The same samples as packs of at most `pack_length` tokens."""
        return _packs(self.data, self.samples(step), self.pack_length)

    def epoch_packs(self) -> list[list[int]]:
        """All samples once, in packs: for validation."""
        return _packs(self.data, list(range(len(self.data))), self.pack_length)


def _packs(data: PackedData, samples: list[int], pack_length: int) -> list[list[int]]:
    packs = best_fit_decreasing([int(data.lengths[i]) for i in samples], pack_length)
    return [[samples[i] for i in pack] for pack in packs]


def rank_packs(packs: list[list[int]], dp_rank: int, dp_size: int) -> list[list[int]]:
    """This data-parallel rank's packs. Every rank gets equally many; an empty pack stands for no samples."""
    each = -(-len(packs) // dp_size)
    padded = packs + [[] for _ in range(each * dp_size - len(packs))]
    return padded[dp_rank::dp_size]


def microbatch(data: PackedData, pack: Sequence[int], pack_length: int) -> dict[str, Any]:
    """One pack as model input, P = pack_length.

    tokens, labels, position_ids: int64 [1, P]; loss_mask: float32 [1, P], already shifted (entry j says whether the
    prediction of labels[j], made at position j, is trained); cu_seqlens: int32 [k + 1], the starts of the samples and
    of the padding, ending with P; max_seqlen: int, the longest segment. Positions restart with every sample.
    """
    tokens, labels, positions = (np.zeros(pack_length, np.int64) for _ in range(3))
    mask = np.zeros(pack_length, np.float32)
    starts, at = [0], 0
    for index in pack:
        ids, trained = data.sample(index)
        end = at + len(ids)
        tokens[at:end] = ids
        labels[at : end - 1] = ids[1:]
        mask[at : end - 1] = trained[1:]
        positions[at:end] = np.arange(len(ids))
        starts.append(end)
        at = end
    if at < pack_length:
        positions[at:] = np.arange(pack_length - at)
        starts.append(pack_length)
    cu_seqlens = np.asarray(starts, np.int32)
    return {
        "tokens": torch.from_numpy(tokens)[None],
        "labels": torch.from_numpy(labels)[None],
        "loss_mask": torch.from_numpy(mask)[None],
        "position_ids": torch.from_numpy(positions)[None],
        "cu_seqlens": torch.from_numpy(cu_seqlens),
        "max_seqlen": int(np.diff(cu_seqlens).max()),
    }
