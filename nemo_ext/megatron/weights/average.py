"""The mean of several checkpoints' weights, straight from torch_dist to a Hugging Face folder in one pass.

The authors of OpenMathInstruct-2 average six equally spaced checkpoints. Their script adds them up in bf16, which
costs twice the error of one rounding, with all of them in memory; here the optimizer's fp32 copies are averaged where
it kept them, else bf16 weights in fp32, a few rows at a time.
"""

from collections.abc import Sequence
from pathlib import Path

from nemo_ext.megatron.weights.export import MAX_SHARD_BYTES, OnBytes, write_hf
from nemo_ext.models.hub_folder import AnswerEnd

RECORD = "average.json"


def average_to_hf(
    checkpoint_dirs: Sequence[Path],
    hf_source: Path,
    out_dir: Path,
    dtype: str,
    chat_template: Path | None = None,
    answer_end: AnswerEnd | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Write the mean of the checkpoints, added up in the order given, as a Hugging Face folder; see `write_hf`.

    The checkpoints must be of the model that `hf_source` configures; topology and vocabulary padding may differ.
    average.json says what was averaged: {"dtype": "bf16", "checkpoints": [{"path", "step", "precision"}, ...]}.
    """
    options = (chat_template, answer_end, max_shard_bytes, on_bytes)
    return write_hf(checkpoint_dirs, hf_source, out_dir, dtype, *options, record=RECORD)
