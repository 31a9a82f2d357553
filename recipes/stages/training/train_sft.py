"""Fine-tune a model with Megatron on the samples `prepare_sft` or `prepare_preferences` wrote. One process per GPU,
or per CPU rank.

In:  <data>/train and <data>/validation; <reference>/train and <reference>/validation where the objective compares with them
Out: checkpoints/step_0010000/ (torch_dist), tensorboard/, metrics.jsonl with one line per step,
     {"step": 1, "loss": 0.93, "lr": 5e-06, "grad_norm": 1.7, "num_tokens": 204800, ...}
Stopped by SIGTERM or SIGUSR1 it saves and exits with code 85; started again it goes on from its newest checkpoint. A
step whose loss or gradient norm is not finite stops it, naming the samples (on_bad_step).
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.plan.host_memory import bytes_at_save
from nemo_ext.megatron.plan.memory import GIB
from nemo_ext.megatron.runtime.preemption import EXIT_PREEMPTED
from nemo_ext.megatron.settings import TrainSettings, world_size
from nemo_ext.models.model import Model
from nemo_ext.models.published_shapes import shape_of
from nemo_ext.records.manifest import Facts
from recipes.stage import Process, Stage, main_process, require_places
from recipes.work import Training

if TYPE_CHECKING:
    from nemo_ext.megatron.data.token_folder import PackedData

FIGURES = ("step", "loss", "validation_loss", "best_validation_loss", "best_step", "skipped_steps")


@dataclass(kw_only=True)
class Config(Stage, TrainSettings):
    data: str = field(default=MISSING, metadata={"path": True})
    """A prepare_sft stage's folder."""
    model: Model = MISSING
    reference: str | None = field(default=None, metadata={"path": True})
    """A reference_logprobs stage's folder: what dpo, ipo, rpo and kto compare with. It must be of `model`."""


def check(cfg: Config) -> None:
    try:
        validate(cfg)
    except ValueError as error:
        raise ValueError(f"stages.{cfg.name}: {error}") from error
    _check_reference(cfg)
    if cfg.resources.gpus and cfg.attention_dropout:
        raise ValueError(
            f"stages.{cfg.name}: attention_dropout={cfg.attention_dropout} keeps every attention weight, which the plan for "
            "GPUs does not count; leave it at 0 (hidden_dropout may be used)"
        )
    require_places(cfg, world_size(cfg))


def _check_reference(cfg: Config) -> None:
    from nemo_ext.megatron.objective import load
    from nemo_ext.megatron.preferences import REFERENCE

    if bool(cfg.reference) != (REFERENCE in load(cfg.objective).columns):
        raise ValueError(
            f"stages.{cfg.name}.reference={cfg.reference}: objectives that compare with a reference need the folder of a "
            f"reference_logprobs stage, and others have no use for it; objective.kind={cfg.objective['kind']}"
        )


def work(cfg: Config) -> Training:
    return Training(cfg)


def processes(cfg: Config, config_path: str) -> list[Process]:
    return [main_process(config_path, ranks=world_size(cfg))]


def host_gib(cfg: Config) -> float | None:
    """GiB of its own memory that a node needs for the GPU ranks on it, most of it while a checkpoint is written. None:
    not known, because there are no GPUs or the model's shape is not to be had here."""
    shape = shape_of(cfg.model.hf_path) if cfg.resources.gpus else None
    return cfg.resources.gpus * bytes_at_save(shape, cfg) / GIB if shape else None


def _opened(cfg: Config, split: str) -> "PackedData":
    from nemo_ext.megatron.data.reference import with_reference
    from nemo_ext.megatron.data.token_folder import PackedData

    data = PackedData.open(Path(cfg.data) / split)
    return with_reference(data, Path(cfg.reference) / split, cfg.precision) if cfg.reference else data


def run(cfg: Config) -> Facts:
    from nemo_ext.megatron.checkpoint_files import RECORD
    from nemo_ext.megatron.train import train, trained_on
    from nemo_ext.megatron.weights.hf import local_folder
    from nemo_ext.models.model_files import weight_files
    from nemo_ext.records.progress import Progress

    source, folder = Path(cfg.data), Path(cfg.output_dir)
    data = _opened(cfg, "train")
    held_out = _opened(cfg, "validation") if (source / "validation").is_dir() else None
    result = train(cfg, cfg.model, data, held_out, folder, Progress(folder, "steps"))
    if result["preempted"]:
        raise SystemExit(EXIT_PREEMPTED)
    start = local_folder(cfg.model.hf_path)
    if int(os.environ.get("RANK", "0")) == 0 and trained_on(cfg, start, data, held_out) != result["trained_on"]:
        raise ValueError(
            f"stages.{cfg.name}: {cfg.data} or {start} was changed while it was trained on, so nothing says what the model "
            f"learned. Put it back and run again, or begin anew: only=[{cfg.name}] redo=true"
        )
    return Facts(
        inputs=[*data.files, *(held_out.files if held_out else [])],
        model_files=weight_files(start),
        outputs=[folder / "metrics.jsonl", *sorted(folder.glob(f"checkpoints/step_*/{RECORD}"))],
        models={cfg.model.name: result["trained_on"]["model"]},
        seeds={"train": cfg.seed},
        tokens={"epoch": data.num_tokens},
        figures={key: result[key] for key in FIGURES},
    )
