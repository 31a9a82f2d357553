"""Everything that depends on megatron-core's version (0.16): parts of it used below their public surface.

Four things: how checkpoints are written, an optimizer step that can be declined, and two about restoring torch's AdamW,
which stands in where neither Transformer Engine nor Apex brings its own (there everything goes by the public path).

The checkpoint writer stages its data in `write_buckets` and hands them to forked processes through a manager process
that it spawns, which runs the caller's __main__ again and costs seconds. `InProcessSave` writes the same files, in the
same format, from the training process itself, at once or in a thread.
"""

import math
import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    FullyParallelLoadStrategyWrapper,
    FullyParallelSaveStrategyWrapper,
)
from megatron.core.dist_checkpointing.strategies.torch import (
    TorchDistLoadShardedStrategy,
    TorchDistSaveShardedStrategy,
)
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32

from nemo_ext.megatron.checkpoint_files import file_hash

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


class PendingSave:
    """A checkpoint on its way to disk. Made and finished by all ranks together; written by each on its own."""

    def __init__(self, content: dict[str, Any], folder: Path, in_background: bool) -> None:
        """With `in_background` everything is copied to host memory before this returns, so training may change it."""
        group = parallel_state.get_data_parallel_group(with_context_parallel=True)
        # Replicas share the writing: each of the ranks that hold a tensor writes some of them.
        strategy = FullyParallelSaveStrategyWrapper(InProcessSave(), group)
        request = dist_checkpointing.save(content, str(folder), sharded_strategy=strategy, async_sharded_save=True)
        self._finalize = request.finalize_fns
        self.hashes: dict[str, str] = {}
        """File name -> hash of what this rank wrote; of all ranks together once it is finished."""
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, args=(request, _staged(request, in_background)))
        self._thread.start()
        if not in_background:
            self._thread.join()

    def _write(self, request: AsyncRequest, buckets: list[Any]) -> None:
        if request.async_fn is None:  # nothing to write on this rank
            return
        rank, _, results = request.async_fn_args
        try:
            request.async_fn(rank, buckets, results)
            written = [Path(bucket[0]) for bucket in buckets]
            self.hashes = {path.name: file_hash(path) for path in written if path.is_file()}
        except BaseException as error:  # noqa: BLE001 raised again where the training loop sees it
            self._error = error

    @property
    def written(self) -> bool:
        """Whether this rank's part is on disk."""
        return not self._thread.is_alive()

    def finish(self) -> None:
        """Wait for all ranks' parts and write what makes the folder a checkpoint.

        Raises:
            OSError: some rank could not write.
        """
        self._thread.join()
        ranks: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, (repr(self._error) if self._error else None, self.hashes))
        failed = [f"rank {rank}: {error}" for rank, (error, _) in enumerate(ranks) if error]
        self.hashes = {name: digest for _, hashes in ranks for name, digest in hashes.items()}
        if failed:
            raise OSError(f"the checkpoint was not written: {'; '.join(failed)}") from self._error
        for finalize in self._finalize:
            finalize()


def _staged(request: AsyncRequest, copy: bool) -> list[Any]:
    """The tensors to write, in host memory; without a GPU that is where the model itself is, hence the copy."""
    if request.preload_fn is None:
        return []
    buckets: list[Any] = request.preload_fn()
    if not copy or torch.cuda.is_available():
        return buckets
    return [
        (name, key, (data, [(item, tensor.clone()) for item, tensor in tensors]))
        for name, key, (data, tensors) in buckets
    ]


def load_sharded(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fill `content` from a checkpoint; ranks that hold the same tensors read each from disk once and share it."""
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    strategy = FullyParallelLoadStrategyWrapper(TorchDistLoadShardedStrategy(), group)
    loaded: dict[str, Any] = dist_checkpointing.load(content, str(folder), sharded_strategy=strategy)
    return loaded


def update_if(optimizer: MegatronOptimizer, clip_grad: float, accept: Callable[[float], bool]) -> tuple[float, bool]:
    """ChainedOptimizer.step, asked first: the gradient norm (before clipping) and whether the update was made.

    `accept` is given the norm, the same on all ranks. Megatron's own step computes it only when it clips, and then
    cannot be stopped.
    """
    assert not optimizer.prepare_grads(), "only fp16's loss scale makes this true"
    norm = float(optimizer.get_grad_norm())
    if not accept(norm):
        return norm, False
    if clip_grad > 0 and math.isfinite(norm):
        for part in optimizer.chained_optimizers:
            parameters = part.get_parameters()
            if parameters:
                decoupled = part.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8
                clip_grad_by_total_norm_fp32(parameters, clip_grad, norm, decoupled)
    assert optimizer.step_with_ready_grads(), "only fp16's loss scale makes it fail"
    return norm, True


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
