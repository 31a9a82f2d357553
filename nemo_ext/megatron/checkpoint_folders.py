"""The names inside a run's `checkpoints` folder. Light imports only.

checkpoints/model.json             {"hf_path", "shape"}: which model this is
checkpoints/step_0000100/          a complete checkpoint; its checkpoint.json says what it holds (checkpoint_files.py)
checkpoints/latest.json            {"step": 100}
"""

import errno
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from nemo_ext.models.shape import ModelShape

LATEST = "latest.json"
MODEL = "model.json"
PARTIAL = ".partial"
"""Suffix of a checkpoint that is still being written, or whose writer was killed."""
_STEP_NAME = re.compile(r"step_(\d{7,})")


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps is."""
    return checkpoints / f"step_{step:07d}"


def step_of(folder: Path) -> int | None:
    """Which step a checkpoint's folder is of, by its name; None when it has another name."""
    match = _STEP_NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def complete_steps(checkpoints: Path) -> list[int]:
    """Steps with a complete checkpoint, ascending."""
    if not checkpoints.is_dir():
        return []
    steps = map(step_of, checkpoints.iterdir())
    return sorted(step for step in steps if step is not None)


def expendable(steps: Sequence[int], keep_checkpoints: int | None, keep_interval: int | None) -> list[int]:
    """Which of the complete `steps` (ascending) may be deleted: all but the newest `keep_checkpoints` and the multiples
    of `keep_interval`."""
    if keep_checkpoints is None:
        return []
    return [step for step in steps[:-keep_checkpoints] if keep_interval is None or step % keep_interval]


def select_steps(checkpoints: Path, steps: Sequence[int]) -> list[Path]:
    """The folders of exactly these steps, in the order given.

    Raises:
        ValueError: no steps, one twice, or one without a complete checkpoint.
    """
    there = complete_steps(checkpoints)
    missing = [step for step in steps if step not in there]
    if missing or not steps or len(set(steps)) < len(steps):
        raise ValueError(f"steps={list(steps)} of {checkpoints}: give distinct steps out of the complete {there}")
    return [step_folder(checkpoints, step) for step in steps]


def check_space(
    folder: Path,
    num_bytes: int,
    what: str = "a checkpoint",
    advice: str = "make room (or set keep_checkpoints) and start again, training resumes from the last checkpoint",
) -> None:
    """Raises OSError (ENOSPC) when the disk of `folder` has not `num_bytes` and 5 % to spare for `what`."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes * 1.05:
        raise OSError(
            errno.ENOSPC,
            f"{what} needs {num_bytes / 1e9:.2f} GB and {free / 1e9:.2f} GB are free: {advice}",
            str(folder),
        )


def read_model(checkpoints: Path) -> tuple[Path, ModelShape]:
    """The Hugging Face folder that training started from, and the model's shape.

    Raises:
        ValueError: `checkpoints` is not the checkpoints folder of a run.
    """
    path = checkpoints / MODEL
    if not path.is_file():
        raise ValueError(f"{checkpoints} has no {MODEL}: give the checkpoints folder of a training run")
    content = json.loads(path.read_text())
    return Path(content["hf_path"]), ModelShape.from_json(content["shape"])
