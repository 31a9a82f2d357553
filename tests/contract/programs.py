"""What the ranks of test_transformer_engine.py run: the trainer as on GPUs, over Transformer Engine's stand-ins."""

from dataclasses import replace
from typing import Any

import torch

from tests.contract import attention, engine

engine.install()  # before megatron.core

import megatron.core.optimizer as optimizer

import nemo_ext.megatron.families.decoder as specs
from tests.nemo_ext.megatron import programs

_choose_layers, _transformer_config = specs.choose_layers, specs.transformer_config
CUDA = torch.device("cuda")


def train_runs(argument: dict[str, Any]) -> dict[str, Any]:
    """{"runs": what the same function of the trainer's own tests returns, or of a run that was refused its message,
    "calls": by run, the kernels' calls, "adam": whose it is}."""
    specs.choose_layers = lambda settings, device: _choose_layers(settings, CUDA)
    specs.transformer_config = lambda settings, shape, parallel: _transformer_config(
        settings, shape, replace(parallel, device=CUDA)
    )
    runs, calls = [], []
    for case in argument["cases"]:
        engine.CALLS.clear(), attention.BACKWARD.clear()
        try:
            runs += programs.train_runs({"cases": [case]})
        except ValueError as error:
            runs.append({"refused": str(error)})
        calls.append({**engine.CALLS, "deterministic backward": attention.BACKWARD[True]})
    return {"runs": runs, "calls": calls, "adam": optimizer.Adam.__module__}
