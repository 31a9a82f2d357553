"""The type conf/model/*.yaml fills. Light imports only: the login node reads this file."""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

WEIGHTS_DTYPES = ("bf16", "fp8")


@dataclass(kw_only=True)
class Model:
    name: str = MISSING
    """What reports and served model lists call it."""
    hf_path: str = field(default=MISSING, metadata={"model": True})
    """A local folder (config.json, *.safetensors, tokenizer.json) or a hub id."""
    context_length: int = MISSING
    """Tokens of prompt and completion together."""
    weights_dtype: str = "bf16"
    """How the checkpoint's linear layers are stored: bf16, or fp8 (embeddings, the output layer and norms then stay bf16).
    For the plan's memory, where the checkpoint is not here to look at."""
    chat_template: str | None = None
    """A file name in nemo_ext/models/chat_templates; None: the tokenizer's own."""


def chat_template_path(model: Model) -> Path | None:
    """The jinja file that replaces the tokenizer's own template.

    Raises:
        ValueError: no such file, with the ones there are.
    """
    if model.chat_template is None:
        return None
    folder = Path(__file__).parent / "chat_templates"
    path = folder / model.chat_template
    if not path.is_file():
        choices = sorted(p.name for p in folder.glob("*.jinja"))
        raise ValueError(f"model.chat_template={model.chat_template!r}: no such file in {folder}; it has {choices}")
    return path
