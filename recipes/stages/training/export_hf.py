"""Write checkpoints as Hugging Face folders that transformers, TensorRT-LLM and vLLM load.

In:  <checkpoints>/checkpoints/step_* of a train_sft stage
Out: checkpoint_1/, checkpoint_2/, ... in step order: safetensors, config, tokenizer, chat template
"""

import glob
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.records.manifest import Facts
from nemo_ext.records.progress import Progress
from recipes.stage import Stage

POLL_S = 5.0


@dataclass(kw_only=True)
class Config(Stage):
    checkpoints: str = field(default=MISSING, metadata={"path": True})
    """A train_sft stage's folder."""
    steps: list[int] = field(default_factory=list)
    """The steps to export; empty: all there are."""
    wait_minutes: float = 0.0
    """How long to wait for `steps` that a training still has to reach."""
    model: Model = MISSING
    """Where config, tokenizer and chat template come from."""
    dtype: str = "bf16"
    """bf16, fp16 or fp32."""


def run(cfg: Config) -> Facts:
    from nemo_ext.evaluation.model_names import checkpoint_name
    from nemo_ext.megatron.checkpoint_files import RECORD, require_template
    from nemo_ext.megatron.checkpoint_folders import complete_steps, step_folder
    from nemo_ext.megatron.weights.export import export_hf
    from nemo_ext.megatron.weights.hf import local_folder
    from nemo_ext.models.chat_tokenizer import ChatTokenizer
    from nemo_ext.models.model_files import companion_files, folder_fingerprint

    root, out = Path(cfg.checkpoints) / "checkpoints", Path(cfg.output_dir)
    _wait_for(cfg, root)
    steps = sorted(cfg.steps) or complete_steps(root)
    if not steps:
        raise ValueError(f"stages.{cfg.name}: {root} has no finished checkpoint")
    sources = {checkpoint_name(number): step_folder(root, step) for number, step in enumerate(steps, start=1)}
    hf_source, template = local_folder(cfg.model.hf_path), chat_template_path(cfg.model)
    tokenizer = ChatTokenizer(cfg.model)
    require_template(sources.values(), tokenizer.template_hash)
    progress = Progress(out, "MB")
    for number, (name, source) in enumerate(sources.items()):
        on_bytes = _reporter(progress, name, number, len(sources))
        export_hf(source, hf_source, out / name, cfg.dtype, template, tokenizer.answer_end, on_bytes=on_bytes)
    return Facts(
        inputs=[source / RECORD for source in sources.values()],
        inputs_came_meanwhile=True,  # with wait_minutes; a checkpoint's record is never written over
        listed=[] if cfg.steps else [f"{glob.escape(str(root))}/step_*/{RECORD}"],
        model_files=companion_files(replace(cfg.model, hf_path=str(hf_source))),
        outputs=sorted(path for name in sources for path in (out / name).iterdir()),
        models={name: folder_fingerprint(out / name) for name in sources},
        figures={"models": len(sources)},
    )


def waits_for(cfg: Config) -> list[str]:
    """Keys whose path may appear while it runs: a training that was launched at the same time makes it."""
    return ["checkpoints"] if cfg.wait_minutes else []


def _wait_for(cfg: Config, root: Path) -> None:
    from nemo_ext.megatron.checkpoint_folders import complete_steps

    progress = Progress(Path(cfg.output_dir), "checkpoints")
    deadline = time.monotonic() + 60 * cfg.wait_minutes
    while missing := sorted(set(cfg.steps) - set(there := complete_steps(root))):
        if time.monotonic() > deadline:
            raise ValueError(
                f"stages.{cfg.name}: {root} has no checkpoint of steps {missing} (it has {there}); name others, or wait "
                f"longer with wait_minutes={cfg.wait_minutes:g}"
            )
        progress.update(len(cfg.steps) - len(missing), len(cfg.steps), training_at=there[-1] if there else 0)
        time.sleep(POLL_S)


def _reporter(progress: Progress, model: str, before: int, models: int) -> Callable[[int, int], None]:
    """Progress through one of several models of the same size, of which `before` are done."""
    return lambda done, total: progress.update((before * total + done) // 10**6, models * total // 10**6, model=model)
