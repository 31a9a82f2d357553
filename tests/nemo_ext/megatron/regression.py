"""Objectives with a regression head and with kept logits, as they would be added, and what ranks do with them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nemo_ext.megatron.data.token_folder import PackedDataWriter

REGRESSION = '''"""The squared error of a regression head's outputs at each sample's last token."""

from dataclasses import dataclass
from typing import ClassVar

from nemo_ext.megatron.objective import Loss, Objective
from nemo_ext.models.head import Regression


@dataclass(kw_only=True)
class Config(Objective):
    outputs: int = 3
    columns: ClassVar[tuple[str, ...]] = ("attributes",)
    figures: ClassVar[tuple[str, ...]] = ("mean_output",)

    def head(self, shape):
        return Regression(self.outputs)

    def loss(self, output):
        outputs = output.last_outputs()
        errors = (outputs - output.column("attributes")[:, : self.outputs]) ** 2
        return Loss(errors.sum(), errors.numel(), {"mean_output": (outputs.sum(), outputs.numel())})
'''
FROM_LOGITS = '''"""Cross entropy by way of the logits of the whole vocabulary, half of it computed here and half by Megatron."""

from dataclasses import dataclass
from typing import ClassVar

from nemo_ext.megatron.objective import Loss, Objective


@dataclass(kw_only=True)
class Config(Objective):
    counts_tokens: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def loss(self, output):
        from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
        from torch.nn.functional import cross_entropy

        logits = gather_from_tensor_model_parallel_region(output.logits)
        own = cross_entropy(logits[0], output.part["labels"][0], reduction="none")[None]
        return Loss(((own + output.losses) / 2 * output.weights).sum(), output.counts.sum())
'''
NUM_ATTRIBUTES = 3


def write_objectives(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "regression.py").write_text(REGRESSION)
    (folder / "from_logits.py").write_text(FROM_LOGITS)
    return folder


def save_rated(folder: Path, num_samples: int) -> Path:
    """Random samples of 1 to 40 tokens, each with three random attributes; of every other one no token is trained."""
    rng = np.random.default_rng(5)
    with PackedDataWriter(folder, {}, ("attributes",)) as writer:
        for number in range(num_samples):
            length = int(rng.integers(1, 41))
            mask = [0] * (length // 2) + [number % 2] * (length - length // 2)
            writer.add(
                rng.integers(0, 250, length).tolist(), mask, {"attributes": rng.normal(size=NUM_ATTRIBUTES).tolist()}
            )
    return folder


def train_runs(argument: dict[str, Any]) -> list[Any]:
    """programs.train_runs, with the objectives of the folder argument["objectives"]."""
    from tests.nemo_ext.megatron import programs

    _add(argument)
    return programs.train_runs(argument)


def heads(argument: dict[str, Any]) -> list[Any]:
    """The head's first weights at each of argument["cases"]: None on the stages that have none."""
    from nemo_ext.megatron.build import unwrap
    from nemo_ext.megatron.runtime import parallel
    from nemo_ext.megatron.train import load_model
    from nemo_ext.models.head import Regression
    from nemo_ext.models.shape import ModelShape
    from tests.nemo_ext.megatron import programs

    folder, found = Path(argument["hf"]), []
    shape = ModelShape.from_hf(folder).with_head(Regression(NUM_ATTRIBUTES))
    for case in argument["cases"]:
        settings = programs.sizes(**case)
        here = parallel.initialize(settings)
        last = unwrap(load_model(settings, shape, folder, here)[-1])
        found.append(last.score.weight.tolist() if last.post_process else None)
        parallel.leave_groups()
    return found


def outputs(argument: dict[str, Any]) -> list[list[float]]:
    """The outputs of the classifier folder argument["hf"] at the last token of each sample of argument["data"], in packs
    of eight."""
    from nemo_ext.megatron.build import unwrap
    from nemo_ext.megatron.data.batches import microbatch
    from nemo_ext.megatron.data.token_folder import PackedData
    from nemo_ext.megatron.runtime import parallel
    from nemo_ext.megatron.runtime.pack_output import PackOutput
    from nemo_ext.megatron.train import load_model
    from nemo_ext.models.shape import ModelShape
    from tests.nemo_ext.megatron import programs

    settings, data, folder = programs.sizes(), PackedData.open(Path(argument["data"])), Path(argument["hf"])
    shape = ModelShape.from_hf(folder)
    model = unwrap(load_model(settings, shape, folder, parallel.initialize(settings))[0]).eval()
    found: list[list[float]] = []
    for start in range(0, len(data), 8):
        batch = microbatch(data, range(start, min(start + 8, len(data))), 400)
        with torch.no_grad():
            pack = model.pack_params(batch, batch)
            values = model(batch["tokens"], batch["position_ids"], None, packed_seq_params=pack)
        found += PackOutput(values, batch, 0, 1, shape.head, None).last_outputs().tolist()
    parallel.shutdown()
    return found


def _add(argument: dict[str, Any]) -> None:
    from nemo_ext.megatron import objectives

    objectives.__path__.append(argument["objectives"])
    sys.dont_write_bytecode = True
