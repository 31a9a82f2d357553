"""What depends on the version of megatron-core (0.16): the parts of it that are used below their public surface.

Three things: how checkpoints are written, and two about restoring torch's AdamW, which stands in where neither
Transformer Engine nor Apex brings its own (there everything goes by the public path).

The checkpoint writer stages its data in `write_buckets` and hands them to forked processes through a manager process
that it spawns, which runs the caller's __main__ again and costs seconds. `InProcessSave` writes the same files, in the
same format, from the training process itself.
"""

import queue
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.optimizer import MegatronOptimizer

SHARDED_BACKEND = "torch_dist"
BACKEND_VERSION = 1


class InProcessSave(TorchDistSaveShardedStrategy):
    """torch_dist checkpoints, one file per rank, written and synced without another process."""

    def __init__(self) -> None:
        super().__init__(SHARDED_BACKEND, BACKEND_VERSION, thread_count=1)

    def async_save(self, sharded_state_dict: Any, checkpoint_dir: Any) -> AsyncRequest:
        # The writer asks this module-level function for the queue that its results come back in.
        original = filesystem_async._get_write_results_queue
        filesystem_async._get_write_results_queue = queue.Queue
        try:
            return super().async_save(sharded_state_dict, checkpoint_dir)
        finally:
            filesystem_async._get_write_results_queue = original

    def _get_save_and_finalize_callbacks(
        self, writer: FileSystemWriterAsync, save_state_dict_ret: Any
    ) -> AsyncRequest:
        request = super()._get_save_and_finalize_callbacks(writer, save_state_dict_ret)
        if request.async_fn is None:  # nothing to write on this rank
            return request
        return request._replace(async_fn=partial(_write_in_process, [writer.transforms]))


def _write_in_process(
    transforms: list[Any], rank: int, write_buckets: list[Any], results_queue: "queue.Queue[Any]"
) -> None:
    """The job of FileSystemWriterAsync.write_preloaded_data_multiproc; failures are passed on in the result."""
    written: dict[int, Any] | Exception = {}
    for index, bucket in enumerate(write_buckets):
        results: queue.Queue[Any] = queue.Queue()
        count: queue.Queue[int] = queue.Queue()
        count.put(index)
        FileSystemWriterAsync.write_preloaded_data(transforms, index, bucket, results, count, use_fsync=True)
        outcome = results.get_nowait()[1]
        if isinstance(outcome, Exception):
            written = outcome
            break
        assert isinstance(written, dict), "a failure ends the loop"
        written[index] = outcome
    results_queue.put(written)


def allocate_adam_state(optimizer: MegatronOptimizer) -> None:
    """Give a new AdamW the state that its first step would, so that a checkpoint can be loaded into it.

    DistributedOptimizer.state_dict reads the step count out of that state and fails when there is none yet.
    """
    for adam in _torch_adams(optimizer):
        for group in adam.param_groups:
            for parameter in group["params"]:
                adam.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }


def load_optimizer(optimizer: MegatronOptimizer, state: dict[str, Any]) -> None:
    """Restore what `optimizer.sharded_state_dict` of the fully_reshardable format gave, after `allocate_adam_state`.

    With torch's AdamW the step count must be kept out of the way while the per-parameter tensors are copied (that code
    looks for it among them), and each parameter needs a count of its own afterwards: loading gives all of them one
    tensor, which every parameter's update would then advance.
    """
    adams = list(_torch_adams(optimizer))
    if not adams or "param_state" not in state:
        optimizer.load_state_dict(state)
    else:
        part = optimizer.chained_optimizers[0]
        part.load_state_dict({key: value for key, value in state.items() if not key.startswith("param_state")})
        steps = [values.pop("step") for adam in adams for values in adam.state.values()]
        part.load_parameter_state_from_fully_reshardable(state["param_state"])
        for values, step in zip((v for adam in adams for v in adam.state.values()), steps, strict=True):
            values["step"] = step
    for adam in adams:
        for values in adam.state.values():
            values["step"] = values["step"].clone()


def _torch_adams(optimizer: MegatronOptimizer) -> Iterator[torch.optim.AdamW]:
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        if isinstance(part.optimizer, torch.optim.AdamW):
            yield part.optimizer
