"""The finished stages of a run, as a report sees them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_ext.evaluation.model_names import AVERAGE, is_checkpoint
from nemo_ext.evaluation.scores import SCORES
from nemo_ext.records import manifest

Finished = dict[str, Path]
"""`stage` or `stage/task` -> its folder."""


def stages(root: Path) -> Finished:
    """`stage` or `stage/task` -> its folder, in the order they finished; results set aside by redo=true are not part."""
    folders = [p.parent for pattern in ("*", "*/*") for p in root.glob(f"{pattern}/{manifest.DONE}")]
    current = [f for f in folders if not manifest.SET_ASIDE.search(str(f.relative_to(root)))]
    current.sort(key=lambda folder: (folder / manifest.DONE).stat().st_mtime_ns)
    return {str(folder.relative_to(root)): folder for folder in current}


def manifests(finished: Finished) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, folder in finished.items():
        yield name, manifest.read(folder)


def scores(finished: Finished) -> dict[str, dict[str, Any]]:
    """Model -> scores.json of its evaluation and its `folder`; a model that was scored twice has its stage's name, too."""
    loaded = [(name, folder) for name, folder in finished.items() if (folder / SCORES).is_file()]
    found: dict[str, dict[str, Any]] = {}
    for name, folder in loaded:
        each = json.loads((folder / SCORES).read_text()) | {"folder": folder}
        model = each["model"] if each["model"] not in found else f"{each['model']} ({name})"
        found[model] = each
    return {model: found[model] for model in sorted(found, key=_model_order)}


def _model_order(name: str) -> tuple[int, str]:
    """Checkpoints in the middle: base, checkpoints, average, teacher."""
    rank = 1 if is_checkpoint(name) else 2 if name == AVERAGE else 3 if "teacher" in name else 0
    return rank, name


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as handle:
        for line in handle:
            yield json.loads(line)
