"""Supervised fine-tuning, run alike by every rank.

    settings, model, data, validation  ->  <output_dir>/checkpoints/step_0000100/, metrics.jsonl

A step is `global_batch_size` samples, packed; what it contains is a function of (data, seed, step) alone, so a run
that resumes from a checkpoint at the same topology repeats the uninterrupted run's losses bit for bit.
"""

import logging
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel
from megatron.core.pipeline_parallel import get_forward_backward_func

from nemo_ext.megatron.checkpoint import Checkpoints, TrainState
from nemo_ext.megatron.data import Batches, PackedData, microbatch, rank_packs
from nemo_ext.megatron.hf import ModelShape, RandomSource, SafetensorsSource, load_weights, local_folder
from nemo_ext.megatron.loss import forward_step
from nemo_ext.megatron.metrics import MetricsLog
from nemo_ext.megatron.optimizer import build_optimizer, build_scheduler, learning_rate, wrap_data_parallel
from nemo_ext.megatron.parallel import Parallel, initialize, shutdown
from nemo_ext.megatron.preemption import PreemptionSignals
from nemo_ext.megatron.settings import TrainSettings, pack_length, validate
from nemo_ext.megatron.specs import build_model, padded_vocab, unwrap
from nemo_ext.model import Model
from nemo_ext.progress import Progress

logger = logging.getLogger(__name__)
METRICS = "metrics.jsonl"
LENGTH_STEP = 64  # a CPU step is trimmed to the longest pack, rounded up to this


def train(
    settings: TrainSettings,
    model: Model,
    data: PackedData,
    validation: PackedData | None,
    output_dir: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train to `train_iters`, resuming from the newest checkpoint in `output_dir`.

    Returns, on every rank, {"step", "loss", "validation_loss", "preempted", "checkpoint"}: the last values of this
    process's work; `preempted` asks the caller to exit with EXIT_PREEMPTED and be started again.

    Raises:
        ValueError: settings that do not fit each other, the model, the data or the number of processes.
    """
    folder = local_folder(model.hf_path)
    shape = ModelShape.from_hf(folder)
    validate(settings, shape)
    parallel = initialize(settings)
    try:
        trainer = Trainer(settings, shape, folder, parallel, data, validation, output_dir)
        with PreemptionSignals() as signals:
            return trainer.run(progress, signals)
    finally:
        shutdown()


class Trainer:
    """One rank's model, optimizer and data, and the loop over them."""

    def __init__(
        self,
        settings: TrainSettings,
        shape: ModelShape,
        hf_folder: Path,
        parallel: Parallel,
        data: PackedData,
        validation: PackedData | None,
        output_dir: Path,
    ) -> None:
        self.settings, self.shape, self.parallel = settings, shape, parallel
        self.model = self._load_model(hf_folder)
        self.optimizer = build_optimizer(settings, self.model)
        self.scheduler = build_scheduler(settings, self.optimizer)
        length = pack_length(settings)
        self.batches = Batches(data, settings.global_batch_size, length, settings.seed)
        self.validation = Batches(validation, 1, length, settings.seed, shuffle=False) if validation else None
        self.checkpoints = Checkpoints(output_dir / "checkpoints", settings, shape, hf_folder, parallel)
        self.state = TrainState(self.model, self.optimizer, self.scheduler)
        self.checkpoints.load_latest(self.state)
        self.metrics = MetricsLog(output_dir / METRICS, self.state.step) if parallel.rank == 0 else None
        self.last: dict[str, Any] = {"loss": None, "validation_loss": None}

    def _load_model(self, hf_folder: Path) -> DistributedDataParallel:
        """Weights go in before the wrapper and the optimizer copy them."""
        parallel, shape, settings = self.parallel, self.shape, self.settings
        model = build_model(settings, shape, parallel)
        source = SafetensorsSource(hf_folder) if settings.init == "hf" else RandomSource(shape, settings.seed)
        offset = parallel.pipeline_rank * shape.num_layers // parallel.pipeline_size
        rows = padded_vocab(settings, shape)
        load_weights(unwrap(model), source, shape, offset, parallel.tensor_rank, parallel.tensor_size, rows)
        return wrap_data_parallel(settings, model)

    def run(self, progress: Progress, signals: PreemptionSignals) -> dict[str, Any]:
        settings, state = self.settings, self.state
        if state.step == 0:
            self.evaluate()
        stop = False
        while state.step < settings.train_iters and not stop:
            stop = self.step(progress, signals)
            done = state.step == settings.train_iters
            if done or (state.step % settings.eval_interval == 0 and not stop):
                self.evaluate()
            if done or stop or state.step % settings.save_interval == 0:
                self.save()
        if self.metrics:
            self.metrics.close()
        checkpoint = self.checkpoints.folder(state.step)
        return {**self.last, "step": state.step, "preempted": stop, "checkpoint": str(checkpoint)}

    def step(self, progress: Progress, signals: PreemptionSignals) -> bool:
        """One optimizer step. True when some rank was asked to stop: all ranks agree in the same reduction."""
        started = time.perf_counter()
        packs = self.batches.step(self.state.step)
        self.model.train()
        self.model.zero_grad_buffer()
        self.optimizer.zero_grad()
        rate = learning_rate(self.optimizer)
        total, count = self._forward_backward(self.batches, packs, forward_only=False)
        success, grad_norm, _ = self.optimizer.step()
        assert success, "without fp16 no step is skipped for an overflow"
        self.scheduler.step(increment=1)
        self.state.step += 1
        total, count, stop = self._sum_over_ranks(total, count, float(signals.received))
        if not count:
            raise ValueError(
                f"step {self.state.step} has no trained token: check the loss masks of {self.batches.data.folder}"
            )
        self.last["loss"] = total / count
        if self.metrics:
            self._log(packs, count, rate, grad_norm, time.perf_counter() - started)
            progress.update(self.state.step, self.settings.train_iters, loss=round(self.last["loss"], 4))
        return stop > 0

    def evaluate(self) -> None:
        """Mean loss per trained token of the validation set."""
        if self.validation is None:
            return
        packs = self.validation.epoch_packs()
        if self.settings.eval_iters is not None:
            packs = packs[: self.settings.eval_iters * self.parallel.data_size]
        self.model.eval()
        with torch.no_grad():
            total, count = self._forward_backward(self.validation, packs, forward_only=True)
        total, count, _ = self._sum_over_ranks(total, count, 0.0)
        if not count:
            raise ValueError(f"{self.validation.data.folder} has no trained token: there is nothing to evaluate")
        self.last["validation_loss"] = total / count
        if self.metrics:
            self.metrics.write(step=self.state.step, validation_loss=total / count)

    def save(self) -> None:
        if self.metrics:
            self.metrics.sync()
        self.checkpoints.save(self.state)

    def _forward_backward(self, batches: Batches, packs: list[list[int]], forward_only: bool) -> tuple[float, float]:
        """This rank's packs through the pipeline. The sum of losses and count of trained tokens, 0 off the last
        stage."""
        mine = rank_packs(packs, self.parallel.data_rank, self.parallel.data_size)
        length = self._length(batches.data, mine)
        iterator = (self._to_device(microbatch(batches.data, pack, length)) for pack in mine)
        reports = get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=iterator,
            model=[self.model],
            num_microbatches=len(mine),
            seq_length=length,
            micro_batch_size=1,
            forward_only=forward_only,
        )
        if not reports:
            return 0.0, 0.0
        return float(sum(r["sum"].double() for r in reports)), float(sum(r["count"].double() for r in reports))

    def _length(self, data: PackedData, packs: list[list[int]]) -> int:
        """Tokens per micro-batch of this step. Constant on a GPU, where memory and kernels are planned for one shape;
        on a CPU what the fullest pack needs, because padding costs as much as text."""
        longest = pack_length(self.settings)
        if self.parallel.device.type == "cuda":
            return longest
        used = max(sum(int(data.lengths[i]) for i in pack) for pack in packs)
        multiple = LENGTH_STEP * self.parallel.tensor_size
        return min(longest, -(-max(used, 1) // multiple) * multiple)

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        device = self.parallel.device
        return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}

    def _sum_over_ranks(self, total: float, count: float, stop: float) -> tuple[float, float, float]:
        """Sums over the whole job; each pack counts once, from its last stage's first tensor parallel rank."""
        if self.parallel.tensor_rank:
            total = count = 0.0
        sums = torch.tensor([total, count, stop], dtype=torch.float64, device=self.parallel.device)
        dist.all_reduce(sums)
        first, second, third = sums.tolist()
        return first, second, third

    def _log(self, packs: list[list[int]], count: float, rate: float, grad_norm: float, seconds: float) -> None:
        assert self.metrics is not None, "only rank 0 logs"
        lengths = self.batches.data.lengths
        self.metrics.write(
            step=self.state.step,
            loss=self.last["loss"],
            lr=rate,
            grad_norm=grad_norm,
            num_tokens=int(sum(int(lengths[i]) for pack in packs for i in pack)),
            num_trained_tokens=int(count),
            seconds=round(seconds, 4),
            epoch=(self.state.step - 1) // self.batches.steps_per_epoch,
        )
