"""Special tokens written out in the text of rows: a tokenizer reads `<|eot_id|>` as the end of a turn wherever it is."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REASON = "special_token"
"""What a row is dropped as whose text has one."""


def finder(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Finds any of the tokens in a text; None where there is none to find."""
    found = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found))) if found else None


def of_checkpoint(hf_path: str) -> frozenset[str]:
    """The special tokens of a checkpoint's folder, read without loading its tokenizer; of no folder here, none."""
    folder = Path(hf_path).expanduser()
    added = _json(folder / "tokenizer.json").get("added_tokens", [])
    listed = _json(folder / "tokenizer_config.json").get("added_tokens_decoder", {}).values()
    return frozenset(token["content"] for token in (*added, *listed) if token.get("special"))


def _json(path: Path) -> dict[str, Any]:
    loaded = json.loads(path.read_text()) if path.is_file() else {}
    return loaded if isinstance(loaded, dict) else {}
