"""TensorBoard and Weights & Biases, both optional: where a run's numbers go besides metrics.jsonl."""

import hashlib
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from nemo_ext.megatron.settings import TrainSettings

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes the numbers of one line of metrics.jsonl."""

    def write(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def open_trackers(settings: TrainSettings, output_dir: Path, step: int) -> list[Tracker]:
    """The trackers that the settings ask for, going on after `step`.

    Raises:
        ValueError: wandb_project is set and the wandb package is not installed.
    """
    trackers: list[Tracker] = []
    if settings.tensorboard and find_spec("tensorboard"):
        trackers.append(TensorBoard(output_dir / "tensorboard", step))
    elif settings.tensorboard:
        logger.info("no TensorBoard files: the tensorboard package is not installed")
    if settings.wandb_project is not None:
        if find_spec("wandb") is None:
            raise ValueError(f"wandb_project={settings.wandb_project}: install the wandb package, or leave it unset")
        trackers.append(WeightsAndBiases(settings, output_dir, step))
    return trackers


class TensorBoard:
    """Event files; what an earlier process wrote past the checkpoint it resumed from is hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1, flush_secs=10)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """One W&B run per output folder, resumed when the training is. Its key is read by wandb from the environment."""

    def __init__(self, settings: TrainSettings, output_dir: Path, step: int) -> None:
        import wandb

        identity = hashlib.sha256(str(output_dir.resolve()).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project=settings.wandb_project,
            name="/".join(output_dir.parts[-2:]),
            id=identity,
            resume="allow",
            dir=str(output_dir),
            config=_plain(settings),
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


def _plain(settings: TrainSettings) -> dict[str, Any]:
    """The trainer's own settings: a stage's config has more (paths, resources), which are nobody else's business."""
    return {name: getattr(settings, name) for name in TrainSettings.__dataclass_fields__}
