"""Whole checkpoints or none: torch_dist folders of model, optimizer, schedule, random states and the log's sums.

    checkpoints/model.json       which model this is: hf_path and shape, for export
    checkpoints/step_0000100/    a complete checkpoint (megatron-core dist_checkpointing; any topology can load it), with
                                 checkpoint.json, what it was trained on and what its files hold
    checkpoints/latest.json      {"step": 100}

A checkpoint is written under another name, synced, and renamed: a folder called step_* is complete. What a killed save
left behind is removed at the next start.
"""

import logging
import os
import pickle
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, tensor_parallel
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from torch.distributed.checkpoint.api import CheckpointException

from nemo_ext.megatron.build import unwrap
from nemo_ext.megatron.checkpoint_files import HEAD, damaged, read_record, unreadable, why_damaged, write_record
from nemo_ext.megatron.checkpoint_folders import (
    LATEST,
    MODEL,
    PARTIAL,
    check_space,
    complete_steps,
    expendable,
    step_folder,
)
from nemo_ext.megatron.objective import SFT, described, load
from nemo_ext.megatron.plan.memory import checkpoint_bytes
from nemo_ext.megatron.runtime.mcore import PendingSave, allocate_adam_state, load_optimizer, load_sharded
from nemo_ext.megatron.runtime.parallel import Parallel
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.head import Vocabulary
from nemo_ext.models.head import described as head_described
from nemo_ext.models.shape import ModelShape
from nemo_ext.records.files import fsync_dir, write_json_atomic

logger = logging.getLogger(__name__)
ORIGINS = {
    "model": "start model",
    "train": "training set",
    "validation": "validation set",
    "chat_template": "chat template",
    "objective": "objective",
    HEAD: "head",
}
UNNAMED = {"objective": described(load(SFT)), HEAD: head_described(Vocabulary())}
"""What a record that says nothing of it means."""


@dataclass
class TrainState:
    """What a checkpoint holds. `step` counts optimizer steps done."""

    chunks: list[DistributedDataParallel]
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler
    log: dict[str, Any] = field(default_factory=dict)
    """Running sums and bests of the training loop; plain values."""
    step: int = 0


class Checkpoints:
    """The checkpoints of one run, written and read by all ranks together."""

    def __init__(
        self,
        root: Path,
        settings: TrainSettings,
        shape: ModelShape,
        hf_folder: Path,
        parallel: Parallel,
        trained_on: dict[str, str],
    ) -> None:
        self.root, self.settings, self.shape, self.parallel = root, settings, shape, parallel
        self.trained_on = trained_on
        if parallel.rank == 0:
            root.mkdir(parents=True, exist_ok=True)
            for leftover in root.glob(f"*{PARTIAL}"):
                logger.warning("removing %s: a save that did not finish", leftover)
                shutil.rmtree(leftover)
            write_json_atomic(root / MODEL, {"hf_path": str(hf_folder), "shape": asdict(shape)})
        dist.barrier()
        self._pending: PendingSave | None = None
        self._pending_step = 0

    def folder(self, step: int) -> Path:
        return step_folder(self.root, step)

    def save(self, state: TrainState) -> None:
        """Write the checkpoint of `state.step`. When this returns on any rank it is complete and durable, or, with
        async_save, on its way: `finish` completes it.

        Raises:
            OSError: too little free space, before anything is written.
        """
        self.finish()
        target = self.folder(state.step)
        partial = target.with_name(target.name + PARTIAL)
        self._on_rank_0(lambda: self._prepare(partial))
        self._pending = PendingSave(self._sharded_state(state), partial, self.settings.async_save)
        self._pending_step = state.step
        if not self.settings.async_save:
            self.finish()

    @property
    def written(self) -> bool:
        """Whether this rank has nothing left to write."""
        return self._pending is None or self._pending.written

    def finish(self) -> None:
        """Complete a checkpoint that is on its way, if one is, waiting for it. Called by all ranks together."""
        if self._pending is None:
            return
        self._pending.finish()
        hashes, self._pending = self._pending.hashes, None
        target = self.folder(self._pending_step)
        partial = target.with_name(target.name + PARTIAL)
        self._on_rank_0(lambda: self._complete(partial, target, self._pending_step, hashes))

    def load_latest(self, state: TrainState) -> bool:
        """Restore the newest complete checkpoint into `state`; False when there is none.

        Raises:
            ValueError: it was trained on something else, saved with another kind of optimizer, or is damaged.
        """
        steps = complete_steps(self.root)
        newest: list[Any] = [steps[-1] if steps else None]
        dist.broadcast_object_list(newest, src=0)  # a shared disk may show ranks different listings
        if newest[0] is None:
            return False
        folder = self.folder(newest[0])
        self._check_origin(folder)
        self._check_files(folder)
        allocate_adam_state(state.optimizer)
        try:
            saved = dist_checkpointing.load_common_state_dict(str(folder))
            self._check_optimizer(folder, saved)
            loaded = load_sharded(self._sharded_state(state, loading=True, saved_topology=saved["topology"]), folder)
        except (CheckpointException, CheckpointingException, OSError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(unreadable(folder, error)) from error
        for number, chunk in enumerate(state.chunks):
            unwrap(chunk).load_state_dict(loaded[f"model{number}"])
        load_optimizer(state.optimizer, loaded["optimizer"])
        state.scheduler.load_state_dict(loaded["scheduler"])
        state.step, state.log = loaded["step"], loaded["log"]
        if "random_states" in loaded:
            _set_random_states(loaded["random_states"])
        if self.parallel.rank == 0:
            logger.info("resuming after step %d from %s", state.step, folder)
        return True

    def _check_origin(self, folder: Path) -> None:
        """A checkpoint trained on other rows, or from another model, would be certified as trained on these."""
        before = read_record(folder)["trained_on"]
        names = sorted(before.keys() | self.trained_on.keys())
        unlike = [name for name in names if before.get(name) != self.trained_on.get(name)]
        if unlike:
            differences = ", ".join(
                f"{ORIGINS.get(name, name)} ({_origin(before, name)}, now {_origin(self.trained_on, name)})"
                for name in unlike
            )
            raise ValueError(
                f"{folder} was trained on another {differences}. Put back what it was trained on to go on from it, or set "
                "this training aside and begin anew: redo=true with only=[<its stage>]"
            )

    def _check_files(self, folder: Path) -> None:
        """Each rank hashes its share of the files, which takes as long as loading them."""
        here = self.parallel
        found: list[str | None] = [None] * here.world_size
        dist.all_gather_object(found, why_damaged(folder, here.rank, here.world_size))
        if why := next(filter(None, found), None):
            raise damaged(folder, why)

    def _check_optimizer(self, folder: Path, saved: dict[str, Any]) -> None:
        before = saved["use_distributed_optimizer"]
        if before != self.settings.use_distributed_optimizer:
            raise ValueError(
                f"{folder} was saved with use_distributed_optimizer={before}, whose state the other optimizer does not "
                f"read: go on with use_distributed_optimizer={before}"
            )

    def _topology(self) -> list[int]:
        here = self.parallel
        return [here.pipeline_size, here.tensor_size, here.context_size, here.data_size]

    def _sharded_state(
        self, state: TrainState, loading: bool = False, saved_topology: list[int] | None = None
    ) -> dict[str, Any]:
        """What to save, or the same with placeholders to load into. Random states belong to one topology only."""
        # The tensors' own keys count layers over the whole model; these names only keep the chunks apart.
        model = {f"model{number}": unwrap(chunk).sharded_state_dict() for number, chunk in enumerate(state.chunks)}
        # Every optimizer tensor as large as its parameter and sharded like it, so that any topology can load it. Not
        # the memory-efficient variant: that has one replica gather and write everything while the others wait.
        metadata = {"distrib_optim_sharding_type": "fully_reshardable"}
        optimizer = state.optimizer.sharded_state_dict(model, is_loading=loading, metadata=metadata)
        content: dict[str, Any] = {**model, "optimizer": optimizer}
        if not loading:
            content["scheduler"] = state.scheduler.state_dict()
            content["step"], content["log"] = state.step, state.log
            content["topology"] = self._topology()
            content["use_distributed_optimizer"] = self.settings.use_distributed_optimizer
        if not loading or saved_topology == self._topology():
            here = self.parallel
            ranks = (here.pipeline_rank, here.tensor_rank, here.context_rank, here.data_rank)
            content["random_states"] = ShardedObject("random_states", _random_states(), tuple(self._topology()), ranks)
        return content

    def _prepare(self, partial: Path) -> None:
        check_space(self.root, checkpoint_bytes(self.shape, self.settings))
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()

    def _complete(self, partial: Path, target: Path, step: int, hashes: dict[str, str]) -> None:
        write_record(partial, self.trained_on, hashes)
        for path in partial.iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        fsync_dir(partial)
        if target.exists():  # the same step, saved again after its metrics were found missing
            shutil.rmtree(target)
        partial.rename(target)
        fsync_dir(self.root)
        write_json_atomic(self.root / LATEST, {"step": step})
        for old in expendable(complete_steps(self.root), self.settings.keep_checkpoints, self.settings.keep_interval):
            shutil.rmtree(self.folder(old))

    def _on_rank_0(self, action: Any) -> None:
        """Run on rank 0 while the others wait; its OSError is raised everywhere, so that no rank hangs."""
        error: list[OSError | None] = [None]
        if self.parallel.rank == 0:
            try:
                action()
            except OSError as problem:
                error[0] = problem
        dist.broadcast_object_list(error, src=0)
        if error[0] is not None:
            raise error[0]


def _origin(trained_on: dict[str, str], name: str) -> str:
    return trained_on.get(name, UNNAMED.get(name, "none"))


def _random_states() -> dict[str, Any]:
    return {
        "cpu": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(),
        "tracker": tensor_parallel.get_cuda_rng_tracker().get_states(),
    }


def _set_random_states(states: dict[str, Any]) -> None:
    torch.cuda.set_rng_state(states["device"])
    tensor_parallel.get_cuda_rng_tracker().set_states(states["tracker"])
    torch.set_rng_state(states["cpu"])  # last: without a GPU all three are the same generator
