"""Batches of a training step: which samples it sees, in which packs, and a pack as model input.

Packs are not part of the data: they are a pure function of (data, seed, step), so a run resumes at any step, at any
TP/PP/CP/DP, with nothing but the step number.

windowed  a step is exactly `global_batch_size` *samples*, as the papers count, packed among themselves
global    all samples of an epoch are packed together, and a step is `packs_per_step` of those packs: a few per cent
          fewer pad tokens, but a step's number of samples varies around `global_batch_size`
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nemo_ext.megatron.data.pack_index import PackIndex, index_key, wait_for
from nemo_ext.megatron.data.packing import best_fit_decreasing, count_packs
from nemo_ext.megatron.data.token_folder import PackedData


class Batches:
    """Which samples step `step`, counted from 0, trains on, as packs of at most `pack_length` tokens.

    With `samples_per_unit` n, samples i n to (i + 1) n - 1 are a unit: they share a pack and a step, in their order, and
    what is said below of samples is then true of units.

    Each epoch is one seeded permutation. The samples, or with packing="global" the packs, that do not fill its last
    step are left out of that epoch (drop_last, as the NeMo-RL guide counts: 950,000 samples at 512 give 1,855 steps).

    With packing="global" an epoch's packs are built when its first step is asked for. With `index_dir` (on a disk that
    all processes share) they are built by those with `build=True`, at best one, and memory-mapped by all; they
    outlive the run, so that resuming, at whatever topology, does not pack again. Without it every process packs for
    itself.

    Raises:
        ValueError: too few samples for one step; a sample longer than a pack; settings that contradict each other.
    """

    def __init__(
        self,
        data: PackedData,
        global_batch_size: int,
        pack_length: int,
        seed: int,
        shuffle: bool = True,
        packing: str = "windowed",
        packs_per_step: int | None = None,
        index_dir: Path | None = None,
        build: bool = True,
        samples_per_unit: int = 1,
    ) -> None:
        self.data, self.global_batch_size, self.pack_length = data, global_batch_size, pack_length
        self.seed, self.shuffle, self.build, self.samples_per_unit = seed, shuffle, build, samples_per_unit
        self.lengths = _unit_lengths(data, samples_per_unit)
        self.packs_per_step: int | None = None
        self._check(packing, packs_per_step)
        if packing == "global":
            packs = count_packs(self.lengths, pack_length)
            self.packs_per_step = packs_per_step or max(1, round(global_batch_size * packs / len(self.lengths)))
            self.steps_per_epoch = packs // self.packs_per_step
            if not self.steps_per_epoch:
                raise ValueError(
                    f"{data.folder} makes {packs} packs, fewer than packs_per_step={self.packs_per_step}: no step can "
                    "be filled. Lower packs_per_step or give it more rows."
                )
        else:
            self.steps_per_epoch = len(self.lengths) // global_batch_size
        self.index_dir = index_dir and index_dir / index_key(self.lengths, pack_length, seed, shuffle)
        self._permutation = lru_cache(maxsize=1)(self._make_permutation)
        self._index = lru_cache(maxsize=1)(self._make_index)

    def _check(self, packing: str, packs_per_step: int | None) -> None:
        data = self.data
        if packing not in ("windowed", "global"):
            raise ValueError(f"packing={packing!r}: it may be 'windowed' or 'global'")
        if packs_per_step is not None and (packing != "global" or packs_per_step < 1):
            raise ValueError(f"packs_per_step={packs_per_step}: at least 1, and only with packing=global")
        each = self.samples_per_unit
        unit, units = ("sample", "samples") if each == 1 else (f"run of {each} samples", f"runs of {each} samples")
        if packs_per_step is None and len(self.lengths) < self.global_batch_size:
            raise ValueError(
                f"{data.folder} has {len(self.lengths)} {units}, fewer than global_batch_size={self.global_batch_size}: "
                "no step can be filled. Lower global_batch_size or give it more rows."
            )
        longest = int(self.lengths.max(initial=0))
        if longest > self.pack_length:
            raise ValueError(
                f"{data.folder} has a {unit} of {longest} tokens, more than pack_length={self.pack_length}"
            )

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def samples(self, step: int) -> list[int]:
        """The sample ids of step `step`; with packing="windowed" `global_batch_size` of them, in drawing order."""
        if self.packs_per_step:
            return [index for pack in self.step(step) for index in pack]
        return self._samples_of(self._drawn(step))

    def step(self, step: int) -> list[list[int]]:
        """The packs of step `step`, as lists of sample ids."""
        if not self.packs_per_step:
            return self._packs(self._drawn(step))
        epoch, position = divmod(step, self.steps_per_epoch)
        first = position * self.packs_per_step
        return [self._samples_of(pack) for pack in self._index(epoch).packs(first, first + self.packs_per_step)]

    def epoch_packs(self) -> list[list[int]]:
        """All samples once, in packs: for validation."""
        return self._packs(list(range(len(self.lengths))))

    def of_places(self, packs: list[list[int]], places: Sequence[int] | None) -> list[list[int]]:
        """The samples of `packs` that have one of `places` in their units, in new packs; None: the packs as they are."""
        if places is None:
            return packs
        chosen = [index for pack in packs for index in pack if index % self.samples_per_unit in places]
        lengths = self.data.lengths[chosen].tolist()
        return [[chosen[i] for i in pack] for pack in best_fit_decreasing(lengths, self.pack_length)]

    def _drawn(self, step: int) -> list[int]:
        """The units of a step of packing="windowed", in drawing order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch_size
        drawn: list[int] = self._permutation(epoch)[start : start + self.global_batch_size].tolist()
        return drawn

    def _packs(self, units: list[int]) -> list[list[int]]:
        packs = best_fit_decreasing(self.lengths[units].tolist(), self.pack_length)
        return [self._samples_of([units[i] for i in pack]) for pack in packs]

    def _samples_of(self, units: list[int]) -> list[int]:
        each = self.samples_per_unit
        return units if each == 1 else [unit * each + place for unit in units for place in range(each)]

    def _make_permutation(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.lengths))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths)).astype(np.int32)

    def _make_index(self, epoch: int) -> PackIndex:
        folder = self.index_dir and self.index_dir / f"epoch_{epoch:04d}"
        if folder is not None:
            if not self.build:
                return wait_for(folder)
            found = PackIndex.open(folder)
            if found is not None:
                return found
        built = PackIndex.build(self.lengths, self.pack_length, self.seed, epoch, self.shuffle)
        if folder is None:
            return built
        built.save(folder)
        return wait_for(folder)


def _unit_lengths(data: PackedData, samples_per_unit: int) -> np.ndarray:
    """int32 [units], tokens."""
    if samples_per_unit == 1:
        return data.lengths
    return data.lengths.reshape(-1, samples_per_unit).sum(1, dtype=np.int32)


def rank_packs(packs: list[list[int]], dp_rank: int, dp_size: int, multiple: int = 1) -> list[list[int]]:
    """This data-parallel rank's packs: every rank gets equally many, a multiple of `multiple`, the empty ones last.

    An empty pack stands for no samples. Packs are dealt out in turn, so the numbers of real ones differ by at most one.
    """
    each = -(-len(packs) // (dp_size * multiple)) * multiple
    padded = packs + [[] for _ in range(each * dp_size - len(packs))]
    return padded[dp_rank::dp_size]


def microbatch(
    data: PackedData, pack: Sequence[int], pack_length: int, loss_mean: str = "tokens", columns: Sequence[str] = ()
) -> dict[str, Any]:
    """One pack as model input, P = pack_length.

    tokens, labels, position_ids: int64 [1, P]; positions restart with every sample.
    loss_mask: float32 [1, P], the weight of the prediction of labels[j], made at position j: with loss_mean="tokens" 1
    where it is trained, with "samples" 1 / (trained predictions of its sample); 0 elsewhere. A sample's first token is
    never predicted, so its entry in the data's mask counts nothing.
    counts: int32 [1, P], what each position adds to the number that the step's weighted sum is divided by: with
    "tokens" 1 where a prediction is trained, with "samples" 1 at the last trained prediction of each sample. Both may
    be sliced along P and summed over the slices.
    cu_seqlens: int32 [k + 1], the starts of the samples and of the padding, ending with P; max_seqlen: int, the
    longest segment.
    num_samples: int, k; columns: {name: float32 [k] or [k, width]}, the values that the data has of each sample.
    """
    tokens, labels, positions = (np.zeros(pack_length, np.int64) for _ in range(3))
    weights, counts = np.zeros(pack_length, np.float32), np.zeros(pack_length, np.int32)
    starts, at = [0], 0
    for index in pack:
        ids, mask = data.sample(index)
        end = at + len(ids)
        tokens[at:end] = ids
        labels[at : end - 1] = ids[1:]
        weights[at : end - 1], counts[at : end - 1] = _weights(mask[1:], loss_mean)
        positions[at:end] = np.arange(len(ids))
        starts.append(end)
        at = end
    if at < pack_length:
        positions[at:] = np.arange(pack_length - at)
        starts.append(pack_length)
    cu_seqlens = np.asarray(starts, np.int32)
    rows = {"tokens": tokens, "labels": labels, "loss_mask": weights, "counts": counts, "position_ids": positions}
    return {
        **{name: torch.from_numpy(row)[None] for name, row in rows.items()},
        "cu_seqlens": torch.from_numpy(cu_seqlens),
        "max_seqlen": int(np.diff(cu_seqlens).max()),
        "num_samples": len(pack),
        "columns": {name: torch.from_numpy(data.columns[name][list(pack)]) for name in columns},
    }


def _weights(trained: np.ndarray, loss_mean: str) -> tuple[np.ndarray, np.ndarray]:
    """(weights, counts) of one sample's predictions, from which of them are trained (0/1)."""
    if loss_mean == "tokens":
        return trained, trained
    if loss_mean != "samples":
        raise ValueError(f"loss_mean={loss_mean!r}: it may be 'tokens' or 'samples'")
    counts = np.zeros_like(trained)
    places = np.flatnonzero(trained)
    counts[places[-1:]] = 1
    return trained / np.float32(max(len(places), 1)), counts
