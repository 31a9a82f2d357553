"""Two objectives as one would be added, a file each, and a rank that trains with them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.megatron.data.token_folder import PackedDataWriter

REFERENCE = "reference_logprob"
PREFERENCE = '''"""The chosen sample's log-probability, less a reference's, is to be above the rejected one's."""

from dataclasses import dataclass
from typing import ClassVar

from nemo_ext.megatron.objective import Loss, Objective


@dataclass(kw_only=True)
class Config(Objective):
    beta: float = 0.1
    columns: ClassVar[tuple[str, ...]] = ("reference_logprob",)
    samples_per_unit: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = ("reward_margin", "accuracy")

    def loss(self, output):
        from torch.nn.functional import logsigmoid

        rewards = self.beta * (output.logprobs() - output.column("reference_logprob")).view(-1, 2)
        margins = rewards[:, 0] - rewards[:, 1]
        count = len(margins)
        figures = {"reward_margin": (margins.sum(), count), "accuracy": ((margins > 0).float().sum(), count)}
        return Loss(-logsigmoid(margins).sum(), count, figures)
'''
BASELINE = '''"""Log-probabilities are to be above the step's mean, which a first pass finds."""

from dataclasses import dataclass
from typing import ClassVar

from nemo_ext.megatron.objective import Loss, Objective


@dataclass(kw_only=True)
class Config(Objective):
    figures: ClassVar[tuple[str, ...]] = ("mean", "baseline", "never")
    first_pass: ClassVar[bool] = True

    def __post_init__(self):
        self.baseline = 0.0

    def prepare(self, figures):
        self.baseline = figures["mean"]

    def loss(self, output):
        logprobs = output.logprobs()
        losses = 1 - (0.1 * (logprobs - self.baseline)).sigmoid()
        figures = {"mean": (logprobs.sum(), len(losses)), "never": (logprobs.sum(), 0)}
        figures["baseline"] = losses.new_tensor(self.baseline), 1
        return Loss(losses.sum(), len(losses), figures)
'''


def write_objectives(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preference.py").write_text(PREFERENCE)
    (folder / "baseline.py").write_text(BASELINE)
    return folder


def save_pairs(folder: Path, num_samples: int = 64, columns: tuple[str, ...] = (REFERENCE,)) -> Path:
    """Random samples of 4 to 40 tokens, the second half of each trained, with a random reference log-probability."""
    rng = np.random.default_rng(5)
    with PackedDataWriter(folder, {}, columns) as writer:
        for _ in range(num_samples):
            length = int(rng.integers(4, 41))
            mask = [0] * (length // 2) + [1] * (length - length // 2)
            values = {name: float(rng.normal(-50, 10)) for name in columns}
            writer.add(rng.integers(0, 250, length).tolist(), mask, values)
    return folder


def train_runs(argument: dict[str, Any]) -> list[Any]:
    """programs.train_runs, with the objectives of the folder argument["objectives"]."""
    from nemo_ext.megatron import objectives
    from tests.nemo_ext.megatron import programs

    objectives.__path__.append(argument["objectives"])
    sys.dont_write_bytecode = True
    return programs.train_runs(argument)
