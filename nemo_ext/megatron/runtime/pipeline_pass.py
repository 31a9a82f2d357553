"""One pass of all model chunks over a list of packs: forward, and backward when training, through the pipeline."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_model_config

from nemo_ext.megatron.data.batches import Batches, microbatch, rank_packs
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.layers.context_parallel import TOKEN_KEYS
from nemo_ext.megatron.layers.dropout import token_keys
from nemo_ext.megatron.objective import Objective
from nemo_ext.megatron.runtime.forward_step import LossOfPack, forward_step
from nemo_ext.megatron.runtime.parallel import Parallel
from nemo_ext.megatron.settings import TrainSettings, pack_length

LENGTH_STEP = 64  # a CPU step is trimmed to the longest pack, rounded up to this


@dataclass
class PassResult:
    """What this rank saw of a pass. Off the pipeline's last stage there are no losses."""

    packs: list[list[int]]
    """This rank's packs: sample indices."""
    length: int
    """Tokens per micro-batch, padding included, over all context parallel ranks."""
    sums: list[float] = field(default_factory=list)
    """Weighted loss sum of each pack; this rank's share of its tokens with context parallelism."""
    counts: list[float] = field(default_factory=list)
    """What each sum is to be divided by."""
    figures: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Sum and count of each of the objective's figures, over this rank's packs."""
    samples: list[list[float]] = field(default_factory=list)
    """Of each pack, what the loss gave of each of its samples."""
    seconds: float = 0.0
    """Until this rank's gradients were ready to be reduced: its own work and its waits for the pipeline."""

    @property
    def loss_sum(self) -> float:
        return sum(self.sums)

    @property
    def count(self) -> float:
        return sum(self.counts)


class Passes:
    """Runs packs through this process's model chunks."""

    def __init__(
        self,
        settings: TrainSettings,
        parallel: Parallel,
        chunks: list[DistributedDataParallel],
        objective: Objective,
    ) -> None:
        self.settings, self.parallel, self.chunks, self.objective = settings, parallel, chunks, objective
        self._drops = settings.hidden_dropout > 0 or settings.attention_dropout > 0
        self._gradients_ready = 0.0
        config = get_model_config(chunks[0])
        config.finalize_model_grads_func = self._timed(config.finalize_model_grads_func)

    def run(
        self,
        batches: Batches,
        packs: list[list[int]],
        forward_only: bool,
        step: int | None = None,
        loss: LossOfPack | None = None,
    ) -> PassResult:
        """This rank's share of `packs`, a whole step's or a whole evaluation's. `step`, counted from 0, is of one that
        trains: what it drops follows from it. `loss` is taken instead of the objective's."""
        assert forward_only or step is not None or not self._drops, "dropout needs the step"
        parallel = self.parallel
        # The interleaved schedule takes whole rounds of the pipeline.
        multiple = parallel.pipeline_size if parallel.num_chunks > 1 else 1
        mine = rank_packs(packs, parallel.data_rank, parallel.data_size, multiple)
        length = self._length(batches.data, mine)
        started = time.perf_counter()
        reports = get_forward_backward_func()(
            forward_step_func=partial(
                forward_step,
                loss_of=loss or self.objective.loss,
                needs_logits=self.objective.needs_logits,
                context_rank=parallel.context_rank,
                context_size=parallel.context_size,
            ),
            data_iterator=self._iterators(batches.data, mine, length, None if forward_only else step),
            model=self.chunks,
            num_microbatches=len(mine),
            seq_length=length,
            micro_batch_size=1,
            forward_only=forward_only,
        )
        result = PassResult(mine, length)
        if reports:
            result.sums = torch.stack([r["sum"].double() for r in reports]).tolist()
            result.counts = torch.stack([r["count"].double() for r in reports]).tolist()
            for name in self.objective.figures:
                parts = [
                    [r[f"{part} {name}"].double() for r in reports if f"{part} {name}" in r]
                    for part in ("sum", "count")
                ]
                total, count = (float(sum(values)) for values in parts)
                result.figures[name] = total, count
            result.samples = [r["samples"].tolist() for r in reports if "samples" in r]
        if not forward_only:
            result.seconds = self._gradients_ready - started
        return result

    def _iterators(self, data: PackedData, packs: list[list[int]], length: int, step: int | None) -> Any:
        """One iterator per model chunk: each sees every pack."""
        iterators = [self._microbatches(data, packs, length, step) for _ in self.chunks]
        return iterators if len(iterators) > 1 else iterators[0]

    def _microbatches(
        self, data: PackedData, packs: list[list[int]], length: int, step: int | None
    ) -> Iterator[dict[str, Any]]:
        device = self.parallel.device
        for pack in packs:
            batch = microbatch(data, pack, length, self.settings.loss_mean, self.objective.columns)
            if self._drops and step is not None:
                batch[TOKEN_KEYS] = token_keys(self.settings.seed, step, pack, batch["cu_seqlens"])[None]
            yield _on_device(batch, device)

    def _length(self, data: PackedData, packs: list[list[int]]) -> int:
        """Tokens per micro-batch of this pass. Constant on a GPU, where memory and kernels are planned for one shape;
        on a CPU what the fullest pack needs, because padding costs as much as text."""
        longest = pack_length(self.settings)
        if self.parallel.device.type == "cuda":
            return longest
        used = max(sum(int(data.lengths[i]) for i in pack) for pack in packs)
        multiple = LENGTH_STEP * self.parallel.tensor_size * self.parallel.context_size
        return min(longest, -(-max(used, 1) // multiple) * multiple)

    def _timed(self, finalize: Any) -> Any:
        """Note when Megatron starts to reduce gradients; what follows is waiting for other ranks."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.parallel.device.type == "cuda":
                torch.cuda.synchronize()
            self._gradients_ready = time.perf_counter()
            return finalize(*args, **kwargs)

        return timed


def _on_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    moved = {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    return moved | {"columns": {name: values.to(device) for name, values in batch["columns"].items()}}
