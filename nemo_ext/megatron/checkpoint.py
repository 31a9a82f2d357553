"""Whole checkpoints or none: torch_dist folders of model, optimizer, schedule and random states.

    checkpoints/model.json             which model this is: hf_path and shape, for export checkpoints/step_0000100/
    a complete checkpoint (megatron-core dist_checkpointing, any TP/PP/DP can load it) checkpoints/latest.json
    {"step": 100}

A checkpoint is written under another name, synced, and renamed: a folder called step_* is complete. What a killed save
left behind is removed at the next start.
"""

import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, tensor_parallel
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from nemo_ext.files import fsync_dir, write_json_atomic
from nemo_ext.megatron.layout import LATEST, MODEL, PARTIAL, check_space, complete_steps, step_folder
from nemo_ext.megatron.mcore import InProcessSave, allocate_adam_state, load_optimizer
from nemo_ext.megatron.parallel import Parallel
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.megatron.shape import ModelShape
from nemo_ext.megatron.specs import unwrap

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """What a checkpoint holds. `step` counts optimizer steps done."""

    model: DistributedDataParallel
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler
    step: int = 0


class Checkpoints:
    """The checkpoints of one run, written and read by all ranks together."""

    def __init__(
        self, root: Path, settings: TrainSettings, shape: ModelShape, hf_folder: Path, parallel: Parallel
    ) -> None:
        self.root, self.settings, self.shape, self.parallel = root, settings, shape, parallel
        if parallel.rank == 0:
            root.mkdir(parents=True, exist_ok=True)
            for leftover in root.glob(f"*{PARTIAL}"):
                logger.warning("removing %s: a save that did not finish", leftover)
                shutil.rmtree(leftover)
            write_json_atomic(root / MODEL, {"hf_path": str(hf_folder), "shape": asdict(shape)})
        dist.barrier()

    def folder(self, step: int) -> Path:
        return step_folder(self.root, step)

    def save(self, state: TrainState) -> Path:
        """Write the checkpoint of `state.step`; when this returns on any rank, it is complete and durable.

        Raises:
            OSError: too little free space, before anything is written.
        """
        target = self.folder(state.step)
        partial = target.with_name(target.name + PARTIAL)
        self._on_rank_0(lambda: self._prepare(partial))
        dist_checkpointing.save(self._sharded_state(state), str(partial), sharded_strategy=InProcessSave())
        dist.barrier()
        self._on_rank_0(lambda: self._complete(partial, target, state.step))
        return target

    def load_latest(self, state: TrainState) -> bool:
        """Restore the newest complete checkpoint into `state`; False when there is none."""
        steps = complete_steps(self.root)
        newest: list[Any] = [steps[-1] if steps else None]
        dist.broadcast_object_list(newest, src=0)  # a shared disk may show ranks different listings
        if newest[0] is None:
            return False
        folder = str(self.folder(newest[0]))
        allocate_adam_state(state.optimizer)
        topology = dist_checkpointing.load_common_state_dict(folder)["topology"]
        loaded = dist_checkpointing.load(self._sharded_state(state, loading=True, saved_topology=topology), folder)
        unwrap(state.model).load_state_dict(loaded["model"])
        load_optimizer(state.optimizer, loaded["optimizer"])
        state.scheduler.load_state_dict(loaded["scheduler"])
        state.step = loaded["step"]
        if "random_states" in loaded:
            _set_random_states(loaded["random_states"])
        if self.parallel.rank == 0:
            logger.info("resuming after step %d from %s", state.step, folder)
        return True

    def _topology(self) -> list[int]:
        return [self.parallel.pipeline_size, self.parallel.tensor_size, self.parallel.data_size]

    def _sharded_state(
        self, state: TrainState, loading: bool = False, saved_topology: list[int] | None = None
    ) -> dict[str, Any]:
        """What to save, or the same with placeholders to load into. Random states belong to one topology only."""
        model = unwrap(state.model).sharded_state_dict()
        # Every optimizer tensor as large as its parameter and sharded like it, so that any topology can load it;
        # gathered on the host, because a GPU has no room for a second copy.
        metadata = {
            "distrib_optim_sharding_type": "fully_reshardable",
            "distrib_optim_fully_reshardable_mem_efficient": self.parallel.device.type == "cuda",
        }
        content: dict[str, Any] = {
            "model": model,
            "optimizer": state.optimizer.sharded_state_dict(model, is_loading=loading, metadata=metadata),
        }
        if not loading:
            content["scheduler"] = state.scheduler.state_dict()
            content["step"] = state.step
            content["consumed_samples"] = state.step * self.settings.global_batch_size
            content["topology"] = self._topology()
        if not loading or saved_topology == self._topology():
            ranks = (self.parallel.pipeline_rank, self.parallel.tensor_rank, self.parallel.data_rank)
            content["random_states"] = ShardedObject("random_states", _random_states(), tuple(self._topology()), ranks)
        return content

    def _prepare(self, partial: Path) -> None:
        itemsize = 2 if self.settings.precision == "bf16" else 4
        # Weights, and Adam's two moments and weights in fp32.
        check_space(self.root, self.shape.num_parameters * (itemsize + 12))
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()

    def _complete(self, partial: Path, target: Path, step: int) -> None:
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
        if self.settings.keep_checkpoints is not None:
            for old in complete_steps(self.root)[: -self.settings.keep_checkpoints]:
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
