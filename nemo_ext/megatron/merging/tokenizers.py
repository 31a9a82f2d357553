"""Refuse to merge models that read or write text differently: their weights are no weights of one model."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from nemo_ext.models.chat_template import template_hash

TEMPLATE = "chat template"


def require_same_text(folders: list[Path], others: list[Path], template: str) -> None:
    """Raises ValueError where two of the merged models' tokenizers differ in what a text becomes, in their end of text or in
    the chat template, or where that is not `template` (a hash), which the merged model gets. `others`, the base and the
    folder that the tokenizer is taken from, may have another template and end."""
    if not folders:
        return
    facts = [(folder, _facts(folder, whole=True)) for folder in folders]
    _require_equal(facts)
    if facts[0][1][TEMPLATE] != template:
        raise ValueError(
            f"{folders[0]} has the chat template {facts[0][1][TEMPLATE]}, and the merged model would get {template}, of "
            "`model`: name one of the merged models there, or its template as model.chat_template"
        )
    _require_equal([(folder, _facts(folder, whole=False)) for folder in (folders[0], *others)])


def _require_equal(facts: list[tuple[Path, dict[str, Any]]]) -> None:
    (first, ours), *others = facts
    for other, theirs in others:
        differing = [name for name in ours if ours[name] != theirs[name]]
        if differing:
            raise ValueError(
                f"{first} and {other} differ in {', '.join(differing)}: a merged model would read one's text with the "
                "other's weights. Merge models that were trained with one tokenizer and chat template"
            )


def _facts(folder: Path, whole: bool) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found: dict[str, Any] = {"vocabulary": _vocabulary(tokenizer), "splitting of text": _splitting(tokenizer)}
    if whole:
        found |= {"end of text": tokenizer.eos_token, TEMPLATE: template_hash(tokenizer.chat_template)}
    return found


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return dict(tokenizer.get_vocab())


def _splitting(tokenizer: PreTrainedTokenizerBase) -> str:
    """How a text is cut into tokens, merges included; "" of a tokenizer that cannot be written down."""
    if not tokenizer.is_fast:
        return ""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps([content.get(part) for part in ("normalizer", "pre_tokenizer", "model")], sort_keys=True)
