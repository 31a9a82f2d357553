"""Merge models of one shape and tokenizer into one: linear, SLERP, task arithmetic, TIES, DARE or WARP's steps.

In:  Hugging Face folders, or train_sft stages' folders with a step
Out: merged/  safetensors, config, tokenizer, chat template; merge.json says of what and how, {"method": {"kind": "ties",
     "density": 0.2, ...}, "models": [{"path": "...", "weight": 1.0, "step": 300}, ...], "base": {...}, "dtype": "bf16"}
Models that differ in shape, tokenizer or chat template are refused, naming what differs. The arithmetic is in fp32, of a
checkpoint's fp32 weights where it has them, and streams: no tensor is in memory as a whole.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.megatron.merging.method import check_models, load
from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.records.manifest import Facts
from nemo_ext.records.progress import Progress
from recipes.stage import Stage

if TYPE_CHECKING:
    from nemo_ext.megatron.merging.sources import ModelSource


@dataclass(kw_only=True)
class Base:
    """The model that the merged ones were trained from."""

    path: str = field(default="", metadata={"model": True})
    """A Hugging Face folder or hub id, or a train_sft stage's folder; "": none."""
    step: int | None = None
    """Of a train_sft stage's folder: which of its checkpoints."""


@dataclass(kw_only=True)
class Merged(Base):
    """A model to merge."""

    path: str = field(default=MISSING, metadata={"model": True})
    """A Hugging Face folder or hub id, or a train_sft stage's folder."""
    weight: float | None = None
    """How much it counts, where the method gives the models weights. None: 1."""


@dataclass(kw_only=True)
class Config(Stage):
    method: dict[str, Any] = field(default_factory=lambda: {"kind": "linear"})
    """`kind`, a file name in nemo_ext/megatron/merging/methods, and that kind's own fields."""
    models: list[Merged] = MISSING
    base: Base = field(default_factory=Base)
    """What the models' differences are taken from (task_arithmetic, ties, dare, warp)."""
    model: Model = MISSING
    """Where config, tokenizer and chat template of the merged model come from."""
    dtype: str = "bf16"
    """bf16, fp16 or fp32."""


def check(cfg: Config) -> None:
    try:
        method = load(cfg.method)
        check_models(method, [each.weight for each in cfg.models])
        if method.of_differences != bool(cfg.base.path):
            wanted = (
                "takes no base" if cfg.base.path else "needs base.path, the model that the others were trained from"
            )
            raise ValueError(f"method.kind={method.kind} {wanted}")
    except ValueError as error:
        raise ValueError(f"stages.{cfg.name}: {error}") from error


def run(cfg: Config) -> Facts:
    from nemo_ext.megatron.merging.merge import merge_to_hf
    from nemo_ext.models.chat_tokenizer import ChatTokenizer
    from nemo_ext.models.model_files import companion_files, folder_fingerprint

    out, method = Path(cfg.output_dir), load(cfg.method)
    models = [_source(cfg, each) for each in cfg.models]
    base = _source(cfg, cfg.base) if cfg.base.path else None
    _check_text(cfg)
    weights = check_models(method, [each.weight for each in cfg.models])
    source, tokenizer, progress = _local(cfg.model.hf_path), ChatTokenizer(cfg.model), Progress(out, "MB")
    record = {
        "method": asdict(method),
        "models": [
            {"path": each.path, "step": each.step, "weight": weight}
            for each, weight in zip(cfg.models, weights, strict=True)
        ],
        "base": {"path": cfg.base.path, "step": cfg.base.step} if cfg.base.path else None,
        "dtype": cfg.dtype,
    }
    merge_to_hf(
        models, base, weights, method, source, out / "merged", cfg.dtype, record,
        chat_template=chat_template_path(cfg.model), answer_end=tokenizer.answer_end,
        on_bytes=lambda done, total: progress.update(done // 10**6, total // 10**6),
    )  # fmt: skip
    return Facts(
        inputs=_inputs([*models, *([base] if base is not None else [])]),
        model_files=companion_files(replace(cfg.model, hf_path=str(source))),
        outputs=sorted((out / "merged").iterdir()),
        models={"merged": folder_fingerprint(out / "merged")},
        figures={"models": len(models), "method": method.kind},
    )


def _local(hf_path: str) -> Path:
    from nemo_ext.megatron.weights.hf import local_folder

    return local_folder(hf_path)


def _source(cfg: Config, merged: Base) -> "ModelSource":
    from nemo_ext.megatron.checkpoint_folders import select_steps
    from nemo_ext.megatron.merging.sources import CheckpointSource, FolderSource
    from nemo_ext.models.shape import ModelShape

    checkpoints = Path(merged.path) / "checkpoints"
    if checkpoints.is_dir() != (merged.step is not None):
        raise ValueError(
            f"stages.{cfg.name}: {merged.path} with step={merged.step}: the folder of a training has checkpoints and "
            "needs a step, a Hugging Face folder has none"
        )
    if merged.step is None:
        return FolderSource(_local(merged.path))
    (folder,) = select_steps(checkpoints, [merged.step])
    return CheckpointSource(folder, ModelShape.from_hf(_local(cfg.model.hf_path)))


def _check_text(cfg: Config) -> None:
    """Raises ValueError where the models read text differently. A checkpoint is of `model`, if it was trained with its
    chat template."""
    from nemo_ext.megatron.checkpoint_files import require_template
    from nemo_ext.megatron.checkpoint_folders import select_steps
    from nemo_ext.megatron.merging.tokenizers import require_same_text
    from nemo_ext.models.chat_tokenizer import ChatTokenizer

    template = ChatTokenizer(cfg.model).template_hash
    folders = [_local(each.path) for each in cfg.models if each.step is None]
    base = [_local(cfg.base.path)] if cfg.base.path and cfg.base.step is None else []
    require_same_text(folders, [*base, _local(cfg.model.hf_path)], template)
    trained = [
        select_steps(Path(each.path) / "checkpoints", [each.step])[0] for each in cfg.models if each.step is not None
    ]
    require_template(trained, template)


def _inputs(sources: "list[ModelSource]") -> list[Path]:
    from nemo_ext.megatron.checkpoint_files import RECORD
    from nemo_ext.models.model_files import weight_files

    found: list[Path] = []
    for source in sources:
        found += [source.folder / RECORD] if (source.folder / RECORD).is_file() else weight_files(source.folder)
    return found
