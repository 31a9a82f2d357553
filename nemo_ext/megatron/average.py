"""The mean of several checkpoints' weights, accumulated in fp32, a slice at a time.

The authors of OpenMathInstruct-2 average six equally spaced checkpoints. Their script adds them up in bf16, which
costs twice the error of one rounding; here fp32 copies are averaged when the optimizer kept them, else bf16 weights in
fp32.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from nemo_ext.files import fsync_dir, write_json_atomic
from nemo_ext.megatron.layout import PARTIAL
from nemo_ext.megatron.torch_dist import Box, TorchDistReader, write_streaming

logger = logging.getLogger(__name__)
SOURCES = "average.json"
# How megatron-core recognises the format; the values it writes itself.
FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


def average(checkpoint_dirs: Sequence[Path], out_dir: Path) -> Path:
    """Write the mean of the checkpoints' weights to `out_dir`: torch_dist, fp32, the same keys, no optimizer.

    The sum runs in the order given. Memory: two slices of one layer's tensor. `out_dir` appears when it is complete
    and is replaced if it is there. Returns `out_dir`.

    Raises:
        ValueError: no checkpoints, one that is incomplete, or two that are not of the same model.
    """
    if not checkpoint_dirs:
        raise ValueError("checkpoint_dirs is empty: give at least one checkpoint to average")
    readers = [TorchDistReader(folder) for folder in checkpoint_dirs]
    sizes = {key: readers[0].size(key) for key in readers[0].weights}
    for reader in readers[1:]:
        _check_same(readers[0], reader)

    def mean(key: str, box: Box) -> torch.Tensor:
        total = readers[0].read(readers[0].main_key(key), *box).float()
        for reader in readers[1:]:
            total += reader.read(reader.main_key(key), *box)
        return total.div_(len(readers))

    partial = out_dir.with_name(out_dir.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_streaming(partial, sizes, torch.float32, mean)
    torch.save({}, partial / "common.pt")
    write_json_atomic(partial / "metadata.json", FORMAT)
    write_json_atomic(partial / SOURCES, {"checkpoints": [str(folder) for folder in checkpoint_dirs]})
    fsync_dir(partial)
    if out_dir.exists():
        shutil.rmtree(out_dir)
    partial.rename(out_dir)
    fsync_dir(out_dir.parent)
    logger.info("averaged %d checkpoints into %s", len(readers), out_dir)
    return out_dir


def averaged_from(folder: Path) -> list[str]:
    """The checkpoints that went into an average."""
    sources: list[str] = json.loads((folder / SOURCES).read_text())["checkpoints"]
    return sources


def _check_same(first: TorchDistReader, other: TorchDistReader) -> None:
    differing = sorted(set(first.weights) ^ set(other.weights))
    if differing:
        raise ValueError(f"{first.folder} and {other.folder} hold different tensors: {', '.join(differing[:5])}")
    for key in first.weights:
        if first.size(key) != other.size(key):
            raise ValueError(
                f"{key} is {first.size(key)} in {first.folder} but {other.size(key)} in {other.folder}: "
                "only checkpoints of one model and one vocabulary padding can be averaged"
            )
