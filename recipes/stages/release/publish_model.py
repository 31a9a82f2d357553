"""Put a trained model where configs name it, with a note of where it came from.

In:  an export_hf stage's checkpoint
Out: <target>/model.safetensors, config.json, tokenizer.json, ... and provenance.json  {"recipe": "toy_models",
     "weights_sha256": "...", "train": {"config_hash": "...", "figures": {"step": 2400, ...}}, "files": {...}}
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.models.model_files import folder_fingerprint
from nemo_ext.records import manifest
from nemo_ext.records.files import sha256_file, write_json_atomic
from nemo_ext.records.manifest import Facts
from recipes.stage import Stage

PROVENANCE = "provenance.json"


@dataclass(kw_only=True)
class Config(Stage):
    recipe: str = MISSING
    """The recipe that rebuilds it."""
    source: str = field(default=MISSING, metadata={"path": True})
    """The exported folder."""
    train: str = field(default=MISSING, metadata={"path": True})
    """The train_sft stage's folder."""
    corpus: str = field(default=MISSING, metadata={"path": True})
    """The folder of the rows it was trained on."""
    target: str = MISSING


def run(cfg: Config) -> Facts:
    source, target = Path(cfg.source), Path(cfg.target)
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in source.iterdir() if path.is_file())
    for path in files:
        copied = target / path.name
        shutil.copyfile(path, copied.with_suffix(copied.suffix + ".tmp"))
        copied.with_suffix(copied.suffix + ".tmp").replace(copied)
    trained, corpus = manifest.read(Path(cfg.train)), manifest.read(Path(cfg.corpus))
    provenance = {
        "recipe": cfg.recipe,
        "files": {path.name: sha256_file(target / path.name) for path in files},
        "train": {key: trained[key] for key in ("config_hash", "figures", "seeds")},
        "corpus": {"rows": corpus["rows_out"], "sha256": corpus["outputs"][0]["sha256"], "prompts": corpus["prompts"]},
    }
    write_json_atomic(target / PROVENANCE, provenance)
    return Facts(
        inputs=[*files, Path(cfg.train) / manifest.MANIFEST, Path(cfg.corpus) / manifest.MANIFEST],
        outputs=[*(target / path.name for path in files), target / PROVENANCE],
        models={target.name: folder_fingerprint(target)},
    )
