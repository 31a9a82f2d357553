"""Fine-tuning towards any objective, run alike by every rank.

    settings, model, data, validation  ->  <output_dir>/checkpoints/step_0000100/, metrics.jsonl

A step is `global_batch_size` samples, packed; what it contains is a function of (data, seed, step) alone, so a run
that resumes from a checkpoint at the same topology repeats the uninterrupted run's losses bit for bit: on a CPU, and by
deterministic_mode on GPUs (where it has not run).
"""

import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nemo_ext.megatron.runtime import cpu
from nemo_ext.records.file_records import fingerprint

cpu.enable()  # megatron.core is imported from here on

from megatron.core.distributed import DistributedDataParallel

from nemo_ext.megatron.build import load_chunks
from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.checkpoint import Checkpoints, TrainState
from nemo_ext.megatron.checkpoint_files import HEAD
from nemo_ext.megatron.data.batches import Batches
from nemo_ext.megatron.data.token_folder import CHAT_TEMPLATE, PackedData
from nemo_ext.megatron.objective import SFT, Objective, described, load, require_columns, trained_shape
from nemo_ext.megatron.record.bad_steps import Guard, badness
from nemo_ext.megatron.record.stragglers import Stragglers
from nemo_ext.megatron.record.training_log import Interval, Watch
from nemo_ext.megatron.runtime.mcore import update_if
from nemo_ext.megatron.runtime.optimizer import (
    build_optimizer,
    build_scheduler,
    gather_weights,
    learning_rate,
    wrap_data_parallel,
)
from nemo_ext.megatron.runtime.parallel import Parallel, initialize, shutdown
from nemo_ext.megatron.runtime.pipeline_pass import Passes, PassResult
from nemo_ext.megatron.runtime.preemption import PreemptionSignals
from nemo_ext.megatron.settings import TrainSettings, pack_length, saves_at
from nemo_ext.megatron.weights.hf import local_folder
from nemo_ext.models.head import Vocabulary
from nemo_ext.models.head import described as head_described
from nemo_ext.models.model import Model
from nemo_ext.models.model_files import weight_files
from nemo_ext.models.shape import ModelShape
from nemo_ext.records.progress import Progress

logger = logging.getLogger(__name__)
WORST_SAMPLES = 20  # named when a step is bad


def train(
    settings: TrainSettings,
    model: Model,
    data: PackedData,
    validation: PackedData | None,
    output_dir: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train to `train_iters`, resuming from the newest checkpoint in `output_dir`.

    Returns, on every rank, {"step", "loss", "validation_loss", "best_validation_loss", "best_step", "skipped_steps",
    "preempted", "checkpoint", "trained_on"}: the last values of this process's work; `preempted` asks the caller to exit
    with EXIT_PREEMPTED and be started again; `trained_on` is what `trained_on` gave when it began.

    Raises:
        ValueError: settings that do not fit each other, the model, the data or the number of processes; or a bad step
        (guard.BadStep); or a checkpoint that was trained on something else.
    """
    folder = local_folder(model.hf_path)
    shape = ModelShape.from_hf(folder)
    validate(settings, shape)
    objective = load(settings.objective)
    shape = trained_shape(settings.objective, shape)
    for each in filter(None, (data, validation)):
        each.require_vocabulary(shape.vocab_size)
        require_columns(objective, each)
    parallel = initialize(settings, settings.seed)
    try:
        trainer = Trainer(settings, objective, shape, folder, parallel, data, validation, output_dir)
        with PreemptionSignals() as signals:
            return trainer.run(progress, signals)
    finally:
        shutdown()


def trained_on(
    settings: TrainSettings, hf_folder: Path, data: PackedData, validation: PackedData | None
) -> dict[str, str]:
    """What a training rests on, by content: {"model", "train"} and, of one that has them, "validation", "chat_template",
    an "objective" other than sft and a "head" other than the vocabulary's. Reads all of it."""
    weights = weight_files(hf_folder) if settings.init == "hf" else [hf_folder / "config.json"]
    found = {"model": fingerprint(weights), "train": data.fingerprint()}
    template = data.facts.get(CHAT_TEMPLATE)
    found |= {"chat_template": template} if template else {}
    objective = described(load(settings.objective))
    if objective != described(load(SFT)):  # whose head is the vocabulary's
        found["objective"] = objective
        head = trained_shape(settings.objective, ModelShape.from_hf(hf_folder)).head
        found |= {HEAD: head_described(head)} if head != Vocabulary() else {}
    return found | ({"validation": validation.fingerprint()} if validation else {})


def load_model(
    settings: TrainSettings, shape: ModelShape, hf_folder: Path, parallel: Parallel
) -> list[DistributedDataParallel]:
    """This rank's model chunks with their first weights, which go in before the wrapper and the optimizer copy them."""
    return wrap_data_parallel(settings, load_chunks(settings, shape, hf_folder, parallel))


def _require_reference(data: PackedData, start: str, folder: Path) -> None:
    """Raises ValueError when the samples' reference log-probabilities are of another model than training begins with."""
    if data.reference_model not in (None, start):
        raise ValueError(
            f"the reference log-probabilities are of the model {data.reference_model}, and the training begins with {start} "
            f"({folder}): run reference_logprobs with this model"
        )


@dataclass(frozen=True)
class Sums:
    """Over the whole job."""

    total: float
    count: float
    stop: float
    """Ranks that were asked to stop."""
    unwritten: float
    """Ranks that have not written their part of a checkpoint."""
    figures: dict[str, float]
    """The objective's figures, without those that nothing was counted of."""

    @property
    def loss(self) -> float:
        return self.total / self.count


class Trainer:
    """One rank's model, optimizer and data, and the loop over them."""

    def __init__(
        self,
        settings: TrainSettings,
        objective: Objective,
        shape: ModelShape,
        hf_folder: Path,
        parallel: Parallel,
        data: PackedData,
        validation: PackedData | None,
        output_dir: Path,
    ) -> None:
        self.settings, self.objective, self.parallel = settings, objective, parallel
        origin = [trained_on(settings, hf_folder, data, validation) if parallel.rank == 0 else {}]
        dist.broadcast_object_list(origin, src=0)
        _require_reference(data, origin[0]["model"], hf_folder)
        chunks = load_model(settings, shape, hf_folder, parallel)
        self.optimizer = build_optimizer(settings, chunks)
        self.scheduler = build_scheduler(settings, self.optimizer)
        self.passes = Passes(settings, parallel, chunks, objective)
        length = pack_length(settings)
        self.batches = Batches(
            data,
            settings.global_batch_size,
            length,
            settings.seed,
            packing=settings.packing,
            packs_per_step=settings.packs_per_step,
            index_dir=output_dir / "packs",
            build=parallel.rank == 0,
            samples_per_unit=objective.samples_per_unit,
        )
        in_order = partial(Batches, shuffle=False, samples_per_unit=objective.samples_per_unit)
        self.validation = in_order(validation, 1, length, settings.seed) if validation else None
        self.checkpoints = Checkpoints(output_dir / "checkpoints", settings, shape, hf_folder, parallel, origin[0])
        self.guard, self.interval = Guard(settings), Interval()
        self.last: dict[str, Any] = {"loss": None, "validation_loss": None}
        self.best: dict[str, Any] = {"best_validation_loss": None, "best_step": None}
        self.state = TrainState(chunks, self.optimizer, self.scheduler)
        if self.checkpoints.load_latest(self.state):
            self._restore_log(self.state.log)
        self.stragglers = Stragglers(parallel.device)
        self.watch = Watch(settings, shape, parallel, output_dir, self.state.step) if parallel.rank == 0 else None

    def run(self, progress: Progress, signals: PreemptionSignals) -> dict[str, Any]:
        settings, state = self.settings, self.state
        if state.step == 0:
            self.evaluate()
        stop = False
        while state.step < settings.train_iters and not stop:
            stop = self.step(progress, signals)
            done = state.step == settings.train_iters
            if done or state.step % settings.log_interval == 0:
                self.report()
            if done or (state.step % settings.eval_interval == 0 and not stop):
                self.evaluate()
            if stop or saves_at(settings, state.step):
                self.save()
        self.checkpoints.finish()
        if self.watch:
            self.watch.close()
        figures = {**self.last, **self.best, "skipped_steps": self.guard.skipped, "step": state.step}
        checkpoint = str(self.checkpoints.folder(state.step))
        return {**figures, "preempted": stop, "checkpoint": checkpoint, "trained_on": self.checkpoints.trained_on}

    def step(self, progress: Progress, signals: PreemptionSignals) -> bool:
        """One optimizer step. True when some rank was asked to stop: all ranks agree in the same reduction."""
        started = time.perf_counter()
        drawn = self.batches.step(self.state.step)
        packs = self.batches.of_places(drawn, self.objective.loss_samples)
        rate = learning_rate(self.optimizer)
        self._prepare(self.batches, drawn)
        result = self._gradients(packs)
        sums = self._sum_over_ranks(result, signals.received, not self.checkpoints.written)
        if not sums.count:
            raise ValueError(
                f"step {self.state.step + 1} has no trained token: check the loss masks of {self.batches.data.folder}"
            )
        loss = sums.loss
        grad_norm, updated = update_if(
            self.optimizer, self.settings.clip_grad, lambda norm: self.guard.reason(loss, norm) is None
        )
        self.scheduler.step(increment=1)
        self.state.step += 1
        reason = None if updated else self.guard.reason(loss, grad_norm)
        line: dict[str, Any] = {
            "step": self.state.step,
            "loss": loss,
            "lr": rate,
            "grad_norm": grad_norm,
            **self._sizes(packs, sums.count),
        }
        line |= {"figures": sums.figures} if sums.figures else {}
        line["seconds"] = round(time.perf_counter() - started, 4)
        if self.watch:
            self.watch.step(line | ({"skipped": reason} if reason else {}))
            progress.update(self.state.step, self.settings.train_iters, loss=round(loss, 4))
            if remark := self.objective.remark(sums.figures):
                logger.warning("step %d: %s", self.state.step, remark)
        self.stragglers.add(result.seconds)
        if reason:
            self._skip(reason, result)
        else:
            self.last["loss"] = loss
            self.guard.accept(loss)
            self.interval.add(line, self._num_padded_tokens(result), self._sum_of_squares(packs))
        if not sums.unwritten:
            self.checkpoints.finish()
        return sums.stop > 0

    def _gradients(self, packs: list[list[int]]) -> PassResult:
        """Forward and backward of a step, from gradients of zero to gradients reduced over the ranks."""
        for chunk in self.state.chunks:
            chunk.train()
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        return self.passes.run(self.batches, packs, forward_only=False, step=self.state.step)

    def _prepare(self, batches: Batches, packs: list[list[int]]) -> None:
        """The objective's first pass over a step or an evaluation, for what its losses need of all of it."""
        if not self.objective.first_pass:
            return
        for chunk in self.state.chunks:
            chunk.eval()
        packs = batches.of_places(packs, self.objective.first_pass_samples)
        with torch.no_grad():
            result = self.passes.run(batches, packs, forward_only=True, loss=self.objective.measure)
        self.objective.prepare(self._sum_over_ranks(result, stop=False, unwritten=False).figures)

    def _skip(self, reason: str, result: PassResult) -> None:
        """Count the bad step, with the samples of the packs whose losses were worst over all ranks."""
        means = [total / max(count, 1.0) for total, count in zip(result.sums, result.counts, strict=True)]
        everyone: list[Any] = [None] * self.parallel.world_size
        dist.all_gather_object(everyone, list(zip(means, result.packs, strict=False)))
        packs = sorted((pair for rank in everyone for pair in rank), key=lambda pair: badness(pair[0]), reverse=True)
        samples = list(dict.fromkeys(sample for _, pack in packs for sample in pack))[:WORST_SAMPLES]
        self.guard.skip(self.state.step, reason, samples)
        if self.watch:
            logger.warning("step %d is left out: %s; worst samples: %s", self.state.step, reason, samples)

    def report(self) -> None:
        """The log line of the steps since the last one."""
        straggler = self.stragglers.report()
        if self.watch and self.interval.steps:
            self.watch.interval(self.state.step, learning_rate(self.optimizer), self.interval, straggler)
        self.interval = Interval()

    def evaluate(self) -> None:
        """Mean loss of the validation set, over what the training loss is the mean over."""
        if self.validation is None:
            return
        packs = self.validation.epoch_packs()
        if self.settings.eval_iters is not None:
            packs = packs[: self.settings.eval_iters * self.parallel.data_size]
        self._prepare(self.validation, packs)
        packs = self.validation.of_places(packs, self.objective.loss_samples)
        for chunk in self.state.chunks:
            chunk.eval()
        with torch.no_grad():
            result = self.passes.run(self.validation, packs, forward_only=True)
        sums = self._sum_over_ranks(result, stop=False, unwritten=False)
        if not sums.count:
            raise ValueError(f"{self.validation.data.folder} has no trained token: there is nothing to evaluate")
        loss = self.last["validation_loss"] = sums.loss
        if self.best["best_validation_loss"] is None or loss < self.best["best_validation_loss"]:
            self.best = {"best_validation_loss": loss, "best_step": self.state.step}
        if self.watch:
            line: dict[str, Any] = {"step": self.state.step, "validation_loss": loss}
            self.watch.step(line | ({"figures": sums.figures} if sums.figures else {}))
            logger.info("step %d: validation loss %.4f", self.state.step, loss)

    def save(self) -> None:
        gather_weights(self.state.chunks)
        if self.watch:
            self.watch.metrics.sync()
        log = [
            {
                "guard": self.guard.state_dict(),
                "interval": self.interval.state_dict(),
                "best": self.best,
                "last": self.last,
            }
        ]
        dist.broadcast_object_list(log, src=0)  # seconds and trimmed lengths differ between ranks
        self.state.log = log[0]
        self.checkpoints.save(self.state)

    def _restore_log(self, log: dict[str, Any]) -> None:
        self.guard.load_state_dict(log["guard"])
        self.interval = Interval(**log["interval"])
        self.best, self.last = log["best"], log["last"]

    def _sum_over_ranks(self, result: PassResult, stop: bool, unwritten: bool) -> Sums:
        """Each pack counts once, from the first tensor parallel rank of its last stage."""
        counted, names = not self.parallel.tensor_rank, self.objective.figures
        mine = [result.loss_sum * counted, result.count * counted, stop, unwritten]
        mine += [value * counted for name in names for value in result.figures.get(name, (0.0, 0.0))]
        sums = torch.tensor(mine, dtype=torch.float64, device=self.parallel.device)
        dist.all_reduce(sums)
        total, count, stops, writers, *pairs = sums.tolist()
        figures = {n: of / number for n, of, number in zip(names, pairs[::2], pairs[1::2], strict=True) if number}
        return Sums(total, count, stops, writers, figures)

    def _sizes(self, packs: list[list[int]], count: float) -> dict[str, int]:
        lengths = self.batches.data.lengths
        sizes = {
            "num_samples": sum(len(pack) for pack in packs),
            "num_tokens": sum(int(lengths[i]) for pack in packs for i in pack),
            "epoch": self.batches.epoch(self.state.step - 1),
        }
        of_tokens = self.objective.counts_tokens and self.settings.loss_mean == "tokens"
        return sizes | ({"num_trained_tokens": int(count)} if of_tokens else {})

    def _sum_of_squares(self, packs: list[list[int]]) -> int:
        return sum(int(self.batches.data.lengths[i]) ** 2 for pack in packs for i in pack)

    def _num_padded_tokens(self, result: PassResult) -> int:
        """Padded tokens of the whole job: every data parallel rank ran as many packs of as many tokens, on GPUs exactly."""
        return len(result.packs) * result.length * self.parallel.data_size
