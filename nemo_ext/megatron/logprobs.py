"""Write the log-probability of every sample's trained tokens under a model, run forward alone. Run alike by every rank.

    <output>/reference_logprob.npy   float32 [samples]
    <output>/reference.json          {"samples": "57ab...", "model": "8d40...", "precision": "bf16", "pack_length": 4096}
    <output>/parts/00000.npy         while it is made: float64 [samples of PACKS packs of every replica]; a job that is
                                     started again goes on after the last one

What it says is a function of samples, model, precision and pack_length; the topology changes it by rounding alone.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from nemo_ext.megatron.runtime import cpu

cpu.enable()  # megatron.core is imported from here on

from nemo_ext.megatron.build import load_chunks
from nemo_ext.megatron.check_settings import validate_forward
from nemo_ext.megatron.data.batches import Batches
from nemo_ext.megatron.data.reference import FILE, RECORD
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.objective import Loss, Objective
from nemo_ext.megatron.runtime.pack_output import PackOutput
from nemo_ext.megatron.runtime.parallel import Parallel, initialize, shutdown
from nemo_ext.megatron.runtime.pipeline_pass import Passes
from nemo_ext.megatron.settings import ForwardSettings, TrainSettings, pack_length
from nemo_ext.megatron.weights.hf import local_folder
from nemo_ext.models.model import Model
from nemo_ext.models.model_files import weight_files
from nemo_ext.models.shape import ModelShape
from nemo_ext.records.file_records import fingerprint
from nemo_ext.records.files import atomic_open, write_json_atomic
from nemo_ext.records.progress import Progress

PACKS = 32
"""Per replica and part."""


def write_logprobs(
    settings: ForwardSettings, model: Model, folders: dict[str, Path], output: Path, progress: Progress
) -> dict[str, Any]:
    """Write <output>/<name>/ for each of the token folders, and return {"model": hash, "<name>": mean log-probability}.

    Raises:
        ValueError: settings that do not fit the model or the number of processes, or samples that it has no embeddings for.
    """
    folder = local_folder(model.hf_path)
    shape = ModelShape.from_hf(folder)
    validate_forward(settings, shape)
    data = {name: PackedData.open(path) for name, path in folders.items()}
    for each in data.values():
        each.require_vocabulary(shape.vocab_size)
    training = TrainSettings(**{name: value for name, value in asdict(settings).items() if name in _FORWARD})
    parallel = initialize(training, training.seed)
    try:
        origin: list[str] = [fingerprint(weight_files(folder)) if parallel.rank == 0 else ""]
        dist.broadcast_object_list(origin, src=0)
        scorer = _Scorer(training, shape, folder, parallel, origin[0], sum(map(len, data.values())))
        return {"model": origin[0]} | {
            name: scorer.write(each, output / name, progress) for name, each in data.items()
        }
    finally:
        shutdown()


_FORWARD = ForwardSettings.__dataclass_fields__.keys()


class _Scorer:
    """One rank's model, and the passes of packs through it."""

    def __init__(
        self, settings: TrainSettings, shape: ModelShape, folder: Path, parallel: Parallel, model_hash: str, total: int
    ) -> None:
        """`total`: samples of all folders, for the progress."""
        self.settings, self.parallel, self.model_hash = settings, parallel, model_hash
        self.before, self.total = 0, total
        chunks = load_chunks(settings, shape, folder, parallel)
        for chunk in chunks:
            chunk.eval()
        self.passes = Passes(settings, parallel, chunks, _Logprobs(kind="logprobs"))

    def write(self, data: PackedData, output: Path, progress: Progress) -> float:
        """The mean over the samples."""
        origin = [self._record(data) if self.parallel.rank == 0 else {}]
        dist.broadcast_object_list(origin, src=0)
        batches = Batches(data, 1, pack_length(self.settings), self.settings.seed, shuffle=False)
        packs, each = batches.epoch_packs(), PACKS * self.parallel.data_size
        parts = [packs[start : start + each] for start in range(0, len(packs), each)]
        done = [self._parts_done(output, origin[0]) if self.parallel.rank == 0 else 0]
        dist.broadcast_object_list(done, src=0)
        written = sum(len(pack) for part in parts[: done[0]] for pack in part)
        for number in range(done[0], len(parts)):
            values = self._values(batches, parts[number])
            if self.parallel.rank == 0:
                with atomic_open(output / "parts" / f"{number:05d}.npy") as handle:
                    np.save(handle, values)
                written += len(values)
                progress.update(self.before + written, self.total)
        self.before += len(data)
        mean = [self._finish(output, parts, len(data), origin[0]) if self.parallel.rank == 0 else 0.0]
        dist.broadcast_object_list(mean, src=0)
        return mean[0]

    def _record(self, data: PackedData) -> dict[str, Any]:
        settings = {"precision": self.settings.precision, "pack_length": pack_length(self.settings)}
        return {"samples": data.fingerprint(), "model": self.model_hash, **settings}

    def _parts_done(self, output: Path, record: dict[str, Any]) -> int:
        """Parts of an interrupted job that asked the same; those of another one are removed."""
        parts, said = output / "parts", output / "parts" / RECORD
        wanted = record | {"packs": PACKS * self.parallel.data_size}
        (output / RECORD).unlink(missing_ok=True)
        if not said.is_file() or json.loads(said.read_text()) != wanted:
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir(parents=True)
            write_json_atomic(said, wanted)
        numbers = range(len(list(parts.glob("*.npy"))))
        return next((number for number in numbers if not (parts / f"{number:05d}.npy").is_file()), len(numbers))

    def _values(self, batches: Batches, packs: list[list[int]]) -> np.ndarray:
        """float64 [samples], in the order of `packs`. The same on every rank."""
        with torch.no_grad():
            result = self.passes.run(batches, packs, forward_only=True)
        mine = [
            (index, value)
            for pack, values in zip(result.packs, result.samples, strict=False)
            for index, value in zip(pack, values, strict=True)
        ]
        everyone: list[Any] = [None] * self.parallel.world_size
        dist.all_gather_object(everyone, mine)
        found = dict(pair for rank in everyone for pair in rank)
        return np.asarray([found[index] for pack in packs for index in pack], np.float64)

    def _finish(self, output: Path, parts: list[list[list[int]]], count: int, record: dict[str, Any]) -> float:
        column = np.full(count, np.nan, np.float64)
        for number, part in enumerate(parts):
            places = [index for pack in part for index in pack]
            column[places] = np.load(output / "parts" / f"{number:05d}.npy", allow_pickle=False)
        if not np.isfinite(column).all():
            place = int(np.flatnonzero(~np.isfinite(column))[0])
            raise ValueError(
                f"sample {place} of {output.name} has the log-probability {column[place]}: is the model whole?"
            )
        with atomic_open(output / FILE) as handle:
            np.save(handle, column.astype(np.float32))
        write_json_atomic(output / RECORD, record)
        shutil.rmtree(output / "parts")
        return float(column.mean()) if count else 0.0


class _Logprobs(Objective):
    """No training: what a pass reports of each sample."""

    def loss(self, output: PackOutput) -> Loss:
        values = output.logprobs()
        return Loss(values.sum(), len(values), samples=values)
