"""The files of a model's folder by what reads them, and the fingerprint that stands for their content.

Names say nothing: a training made anew writes other weights into the same folder. Every byte counts, so a 405B model is
read once by each task that serves or trains it, beside the server that loads it.
"""

from collections.abc import Iterable
from pathlib import Path

from nemo_ext.models.hub_folder import CONFIG, GENERATION_CONFIG, weight_map
from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.records.file_records import fingerprint

WEIGHTS = ("*.safetensors", "*.index.json", "pytorch_model*.bin", "consolidated*", "*.gguf", "*.engine")
TEXT = (
    "tokenizer*", "special_tokens_map*", "added_tokens*", "vocab*", "merges*", "chat_template*", "*.jinja", "*.model",
    "*.tiktoken",
)  # fmt: skip
"""Names of what turns messages into tokens."""


def folder_of(model: Model) -> Path | None:
    """The model's folder; None where hf_path is a hub id, whose files are not looked for."""
    path = Path(model.hf_path).expanduser()
    return path if path.is_dir() else None


def weight_files(folder: Path) -> list[Path]:
    """What a trainer reads: config.json and the weights.

    Raises:
        ValueError: the index of the weights names a file outside the folder, which nothing would vouch for.
    """
    weight_map(folder)
    return _matching(folder, (CONFIG, *WEIGHTS))


def text_files(model: Model) -> list[Path]:
    """What turns messages into tokens: the tokenizer's files, and the chat template that replaces its own."""
    folder, template = folder_of(model), chat_template_path(model)
    own = [] if folder is None else _matching(folder, (CONFIG, *TEXT))
    return [*own, *([] if template is None else [template])]


def companion_files(model: Model) -> list[Path]:
    """All but the weights: what an exported model takes over."""
    folder = folder_of(model)
    return [*text_files(model), *([] if folder is None else _matching(folder, (GENERATION_CONFIG,)))]


def model_files(model: Model) -> list[Path]:
    """All that decides what a served model says."""
    folder = folder_of(model)
    return list(dict.fromkeys([*([] if folder is None else weight_files(folder)), *companion_files(model)]))


def model_fingerprint(model: Model) -> str:
    """A hash of the model's files, or the hub id of a model that has no folder here."""
    return fingerprint(model_files(model)) if folder_of(model) else model.hf_path


def folder_fingerprint(folder: Path) -> str:
    """The same of a folder that a stage has written."""
    return model_fingerprint(Model(hf_path=str(folder)))


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith("."))
