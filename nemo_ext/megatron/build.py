"""Build this process's part of a model, by the file of its architecture in nemo_ext/megatron/families."""

import importlib
from pathlib import Path
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.transformer.module import Float16Module

from nemo_ext.megatron.layers.dropout_layer import require_dropout
from nemo_ext.megatron.runtime.parallel import Parallel
from nemo_ext.megatron.settings import ForwardSettings, Optimisation, TrainSettings, padded_vocab
from nemo_ext.megatron.weights.hf import first_weights, load_weights
from nemo_ext.models.shape import ModelShape


def build_model(settings: ForwardSettings, shape: ModelShape, parallel: Parallel) -> list[torch.nn.Module]:
    """This process's model chunks in order, weights not yet set, in the settings' precision on this rank's device.

    Raises:
        ValueError: dropout, of an architecture whose layers have none.
    """
    architecture = importlib.import_module(f"nemo_ext.megatron.families.{shape.family.architecture}")
    chunks: list[torch.nn.Module] = architecture.build(settings, shape, parallel)
    if isinstance(settings, Optimisation):
        require_dropout(settings, shape, chunks)
    return chunks


def load_chunks(
    settings: TrainSettings, shape: ModelShape, hf_folder: Path, parallel: Parallel
) -> list[torch.nn.Module]:
    """This process's model chunks with their first weights: those of the folder, or random ones of its config."""
    chunks = build_model(settings, shape, parallel)
    source = first_weights(hf_folder, shape, settings.init, settings.seed)
    rows = padded_vocab(settings, shape)
    for chunk in map(unwrap, chunks):
        load_weights(chunk, source, shape, chunk.first_layer, parallel.tensor_rank, parallel.tensor_size, rows)
    return chunks


def unwrap(model: torch.nn.Module) -> Any:
    """The architecture's own module inside the bf16 and the data parallel wrapper, if there are; it has `first_layer`, the
    index of its first layer in the whole model, `pack_params`, which makes of a micro-batch what its layers take, `head`,
    and `cross_entropy`, which makes of labels and kept logits their losses."""
    while isinstance(model, DistributedDataParallel | Float16Module):
        model = model.module
    return model
