"""Average the weights of equally spaced checkpoints in fp32 (OpenMathInstruct-2: six of them), as a Hugging Face folder.

In:  <checkpoints>/checkpoints/step_*  of a train_sft stage
Out: average/  safetensors, config, tokenizer, chat template; average.json says which steps, and in which precision
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.records.manifest import Facts
from nemo_ext.records.progress import Progress
from recipes.stage import Stage


@dataclass(kw_only=True)
class Config(Stage):
    checkpoints: str = field(default=MISSING, metadata={"path": True})
    """A train_sft stage's folder."""
    steps: list[int] = MISSING
    """The steps to average."""
    model: Model = MISSING
    """Where config, tokenizer and chat template come from."""
    dtype: str = "bf16"
    """bf16, fp16 or fp32."""


def run(cfg: Config) -> Facts:
    from nemo_ext.megatron.checkpoint_files import RECORD, require_template
    from nemo_ext.megatron.checkpoint_folders import select_steps
    from nemo_ext.megatron.weights.average import average_to_hf
    from nemo_ext.megatron.weights.hf import local_folder
    from nemo_ext.models.chat_tokenizer import ChatTokenizer
    from nemo_ext.models.model_files import companion_files, folder_fingerprint

    out = Path(cfg.output_dir)
    sources = select_steps(Path(cfg.checkpoints) / "checkpoints", sorted(cfg.steps))
    tokenizer = ChatTokenizer(cfg.model)
    require_template(sources, tokenizer.template_hash)
    progress = Progress(out, "MB")
    source = local_folder(cfg.model.hf_path)
    folder = average_to_hf(
        sources,
        source,
        out / "average",
        cfg.dtype,
        chat_template_path(cfg.model),
        tokenizer.answer_end,
        on_bytes=lambda done, total: progress.update(done // 10**6, total // 10**6),
    )
    return Facts(
        inputs=[checkpoint / RECORD for checkpoint in sources],
        model_files=companion_files(replace(cfg.model, hf_path=str(source))),
        outputs=sorted(folder.iterdir()),
        models={"average": folder_fingerprint(folder)},
        figures={"checkpoints": len(cfg.steps), "precision": _precision(folder)},
    )


def _precision(folder: Path) -> str:
    """What was averaged: "main parameters in float32", or weights that had been rounded."""
    from nemo_ext.megatron.weights.average import RECORD

    record = json.loads((folder / RECORD).read_text())
    return "; ".join(sorted({checkpoint["precision"] for checkpoint in record["checkpoints"]}))
