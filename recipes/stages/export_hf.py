"""Write checkpoints as Hugging Face folders that transformers, TensorRT-LLM and vLLM load.

In:  <checkpoints>/checkpoints/step_* of a train_sft stage and, if given, an average stage's folder
Out: checkpoint_1/, checkpoint_2/, ... in step order, and average/: safetensors, config, tokenizer, chat template
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from nemo_ext.model import Model, chat_template_path
from recipes.stage import Stage


@dataclass(kw_only=True)
class Config(Stage):
    checkpoints: str = MISSING
    """A train_sft stage's folder."""
    steps: list[int] = field(default_factory=list)
    """Which steps; empty: all there are."""
    average: str | None = None
    """An average stage's folder."""
    model: Model = MISSING
    """Where config, tokenizer and chat template come from."""
    dtype: str = "bf16"
    """bf16, fp16 or fp32."""


def run(cfg: Config) -> Facts:
    from nemo_ext.manifest import model_fingerprint
    from nemo_ext.megatron.export import export_hf
    from nemo_ext.megatron.hf import local_folder
    from nemo_ext.megatron.layout import complete_steps, step_folder
    from nemo_ext.progress import Progress

    root, out = Path(cfg.checkpoints) / "checkpoints", Path(cfg.output_dir)
    steps = sorted(cfg.steps) or complete_steps(root)
    if not steps:
        raise ValueError(f"stages.{cfg.name}: {root} has no finished checkpoint")
    sources = {f"checkpoint_{number}": step_folder(root, step) for number, step in enumerate(steps, start=1)}
    if cfg.average is not None:
        sources["average"] = Path(cfg.average) / "average"
    progress = Progress(out, "models")
    for done, (name, source) in enumerate(sources.items()):
        progress.update(done, len(sources))
        export_hf(source, local_folder(cfg.model.hf_path), out / name, cfg.dtype, chat_template_path(cfg.model))
    return Facts(
        inputs=[source / "metadata.json" for source in sources.values()],
        outputs=sorted(path for name in sources for path in (out / name).glob("*.safetensors")),
        models={name: model_fingerprint(out / name) for name in sources},
        figures={"models": len(sources)},
    )
