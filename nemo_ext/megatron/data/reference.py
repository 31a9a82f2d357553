"""A reference model's log-probabilities beside the samples they are of (nemo_ext/megatron/logprobs.py)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.preferences import REFERENCE

FILE, RECORD = f"{REFERENCE}.npy", "reference.json"


def with_reference(data: PackedData, folder: Path, precision: str) -> PackedData:
    """The samples with the column reference_logprob.

    Raises:
        ValueError: the folder is not finished, or is of other samples or another precision.
    """
    said = folder / RECORD
    if not said.is_file():
        raise ValueError(f"{folder} has no {RECORD}: it is not a finished reference_logprobs output")
    record: dict[str, Any] = json.loads(said.read_text())
    if record["samples"] != data.fingerprint():
        raise ValueError(
            f"{folder} has the log-probabilities of other samples than those of {data.folder}: run reference_logprobs again"
        )
    if record["precision"] != precision:
        raise ValueError(
            f"{folder} was computed in {record['precision']}, and the training runs in {precision}: the model would seem to "
            "have moved before its first step. Give both stages the same precision"
        )
    values = np.load(folder / FILE, mmap_mode="r" if len(data) else None, allow_pickle=False)
    if values.shape != (len(data),):
        raise ValueError(
            f"{folder / FILE} has {len(values)} values for {len(data)} samples: run reference_logprobs again"
        )
    data.add_column(REFERENCE, values, folder / FILE)
    data.reference_model = record["model"]
    return data
