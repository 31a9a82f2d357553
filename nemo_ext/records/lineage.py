"""The stages that files came from, back to the seed data, out of the manifests beside them."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_ext.records.manifest import MANIFEST


@dataclass
class StageRecord:
    """A stage with all its tasks: rows and drops added up, models, prompts and seeds together."""

    name: str
    uses: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    models: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    """Figures of the last task."""
    code_versions: set[str] = field(default_factory=set)
    tasks: int = 0


def upstream(files: Iterable[Path]) -> tuple[list[StageRecord], list[dict[str, Any]]]:
    """(stages from the first to the last, files that no stage wrote with their hashes)."""
    records: dict[str, StageRecord] = {}  # in the order in which stages could have run
    outside: dict[str, dict[str, Any]] = {}
    seen: set[Path] = set()

    def visit(folder: Path) -> None:
        seen.add(folder)
        manifest = json.loads((folder / MANIFEST).read_text())
        for each in manifest["inputs"]:
            parent = Path(each["path"]).parent
            if not (parent / MANIFEST).is_file():
                outside.setdefault(each["path"], each)
            elif parent not in seen:
                visit(parent)
        _add(records.setdefault(manifest["stage"], StageRecord(manifest["stage"], manifest["uses"])), manifest)

    for folder in dict.fromkeys(path.parent for path in files):
        if folder not in seen and (folder / MANIFEST).is_file():
            visit(folder)
    return list(records.values()), list(outside.values())


def _add(record: StageRecord, manifest: dict[str, Any]) -> None:
    record.tasks += 1
    record.rows_in += manifest["rows_in"] or 0
    record.rows_out += manifest["rows_out"] or 0
    record.dropped.update(manifest["dropped"])
    record.models |= manifest["models"]
    record.prompts |= manifest["prompts"]
    record.seeds |= manifest["seeds"]
    record.figures = manifest["figures"]
    record.code_versions.add(manifest["code_version"])
