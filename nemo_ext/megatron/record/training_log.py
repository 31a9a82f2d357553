"""The log of a training: one line per log interval, and every number in metrics.jsonl and the trackers.

step 1,200/60,000 | loss 0.4312 | grad norm 0.51 | lr 5.00e-06 | 41,200 tok/s (42,900 with padding) |
412.3 TFLOP/s per GPU, MFU 41.7 % | 61.2 GiB | 5.98 s/step | ETA 4 d 01:40
"""

import logging
import resource
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nemo_ext.machine.gpus import find_gpu
from nemo_ext.megatron.plan.flops import model_flops
from nemo_ext.megatron.record.metrics import MetricsLog
from nemo_ext.megatron.record.stragglers import SLOW
from nemo_ext.megatron.record.trackers import open_trackers
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.shape import ModelShape

if TYPE_CHECKING:
    from nemo_ext.megatron.runtime.parallel import Parallel  # importing it makes torch run megatron-core without a GPU

logger = logging.getLogger(__name__)
METRICS = "metrics.jsonl"


@dataclass
class Interval:
    """Sums over the steps since the last log line; in the checkpoint, so that a resumed run's lines are the same."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    sum_of_squares: int = 0
    """Sum of the squared lengths of the samples, tokens^2: what attention costs."""
    seconds: float = 0.0
    figures: dict[str, list[float]] = field(default_factory=dict)
    """Sum of each of the objective's figures, and the number of steps that had it."""

    def add(self, line: dict[str, Any], num_padded_tokens: int, sum_of_squares: int) -> None:
        self.steps += 1
        self.num_padded_tokens += num_padded_tokens
        self.sum_of_squares += sum_of_squares
        for name in ("loss", "grad_norm", "num_tokens", "seconds"):
            setattr(self, name, getattr(self, name) + line[name])
        for name, value in line.get("figures", {}).items():
            total, count = self.figures.get(name, (0.0, 0))
            self.figures[name] = [total + value, count + 1]

    def state_dict(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


class Watch:
    """Rank 0's log; the other ranks have none. Opening it at `step` takes back what was logged after it."""

    def __init__(
        self, settings: TrainSettings, shape: ModelShape, parallel: "Parallel", output_dir: Path, step: int
    ) -> None:
        self.settings, self.shape, self.parallel = settings, shape, parallel
        self.metrics = MetricsLog(output_dir / METRICS, step)
        self.trackers = open_trackers(settings, output_dir, step)
        name = torch.cuda.get_device_name() if parallel.device.type == "cuda" else ""
        self.gpu = find_gpu(name)
        self.started, self.first_step = time.monotonic(), step

    def step(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl; `line` has the step and its numbers, among them the objective's `figures`."""
        self.metrics.write(**line)
        numbers = {k: v for k, v in line.items() if k != "step" and isinstance(v, int | float)}
        prefix = "validation_" if "validation_loss" in line else ""
        numbers |= {prefix + name: value for name, value in line.get("figures", {}).items()}
        for tracker in self.trackers:
            tracker.write(line["step"], numbers)

    def interval(self, step: int, lr: float, interval: Interval, straggler: dict[str, Any]) -> None:
        """The line for people, of the steps since the last one."""
        steps, seconds = interval.steps, max(interval.seconds, 1e-9)
        flops = model_flops(self.shape, interval.num_tokens, interval.sum_of_squares)
        tflops = flops / seconds / self.parallel.world_size / 1e12
        parts = [
            f"step {step:,}/{self.settings.train_iters:,}",
            f"loss {interval.loss / steps:.4f}",
            *(f"{name.replace('_', ' ')} {total / count:.4f}" for name, (total, count) in interval.figures.items()),
            f"grad norm {interval.grad_norm / steps:.3f}",
            f"lr {lr:.2e}",
            f"{interval.num_tokens / seconds:,.0f} tok/s ({interval.num_padded_tokens / seconds:,.0f} with padding)",
            self._speed(tflops),
            f"{memory_gib(self.parallel.device):.1f} GiB",
            f"{seconds / steps:.2f} s/step",
            f"ETA {duration(seconds / steps * (self.settings.train_iters - step))}",
        ]
        logger.info(" | ".join(parts))
        if straggler["slowest_ratio"] > SLOW:
            logger.warning(
                "rank %d on %s takes %.2f times as long as the median rank",
                *(straggler[key] for key in ("slowest_rank", "slowest_host", "slowest_ratio")),
            )
        figures = {"tokens_per_second": interval.num_tokens / seconds, "tflops_per_gpu": tflops, **straggler}
        self.step({"step": step, "interval": steps, **figures})

    def _speed(self, tflops: float) -> str:
        if self.gpu is None:
            return f"{tflops:.3g} TFLOP/s per process"
        peak = self.gpu.fp8_tflops if self.settings.fp8 else self.gpu.bf16_tflops
        return (
            f"{tflops:.1f} TFLOP/s per GPU, MFU {100 * tflops / peak:.1f} %"
            if peak
            else f"{tflops:.1f} TFLOP/s per GPU"
        )

    def close(self) -> None:
        self.metrics.close()
        for tracker in self.trackers:
            tracker.close()


def memory_gib(device: torch.device) -> float:
    """The most memory used so far: allocated on the GPU, or resident in this process (ru_maxrss is in KiB on Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def duration(seconds: float) -> str:
    """`3 d 04:05` or `04:05:06`."""
    minutes, secs = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, rest = divmod(hours, 24)
    return f"{days} d {rest:02d}:{minutes:02d}" if days else f"{rest:02d}:{minutes:02d}:{secs:02d}"
