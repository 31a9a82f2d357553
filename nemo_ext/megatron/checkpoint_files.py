"""checkpoint.json in every checkpoint: what it was trained on and what its files hold, so that it is known by content.

    {"trained_on": {"model": "8d40...", "train": "57ab...", "validation": "09c1..."},
     "files": {"__0_0.distcp": {"bytes": 81234, "xxh128": "9f..."}, ".metadata": {...}, "common.pt": {...}, ...}}

XXH3's 128 bits tell any two trainings, and any damage, apart, and cost a fraction of reading: 70B writes 1 TB a checkpoint.

Its own hash stands for the checkpoint in manifests. Of a checkpoint without one, whose files are known to be good:
`python -m nemo_ext.megatron.checkpoint_files <step folder>` writes what they hold now, so that it can be averaged and
exported; a training does not go on from it, as nothing says what it was trained on.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from nemo_ext.megatron.checkpoint_folders import MODEL, read_model
from nemo_ext.models.head import Head, Vocabulary, described, head_of
from nemo_ext.models.shape import ModelShape
from nemo_ext.records.files import write_json_atomic

RECORD = "checkpoint.json"
HEAD = "head"
"""In `trained_on`: the head, where it is not the vocabulary's (models/head.py)."""
CHUNK = 4 << 20
MAX_THREADS = 8


def file_hash(path: Path) -> str:
    """XXH3 (128 bits) of a file, in hex."""
    digest, chunk = xxhash.xxh3_128(), memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(chunk):
            digest.update(chunk[:count])
    return digest.hexdigest()


def write_record(folder: Path, trained_on: Mapping[str, str], known: Mapping[str, str] | None = None) -> None:
    """Describe every file of a checkpoint. `known`: name -> hash of those that were hashed as they were written, some of
    which a shared disk may not list here yet."""
    hashes = dict(known or {})
    names = sorted({path.name for path in folder.iterdir() if path.name != RECORD} | hashes.keys())
    files = {
        name: {"bytes": (folder / name).stat().st_size, "xxh128": hashes.get(name) or file_hash(folder / name)}
        for name in names
    }
    write_json_atomic(folder / RECORD, {"trained_on": dict(trained_on), "files": files})


def require_template(folders: Iterable[Path], template_hash: str) -> None:
    """Raises ValueError for a checkpoint that was trained with another chat template than the exported model is to have:
    it would be asked in another form than it learned, and stop at another token."""
    for folder in folders:
        trained = read_record(folder)["trained_on"].get("chat_template", template_hash)
        if trained != template_hash:
            raise ValueError(
                f"{folder} was trained with the chat template {trained}, and model.chat_template (or the model's own) is "
                f"{template_hash}: give the stage the model settings that prepare_sft had"
            )


def require_head(folders: Iterable[Path], shape: ModelShape) -> ModelShape:
    """The shape of the model that checkpoints hold: the start model's, with the head that they were trained with.

    Raises:
        ValueError: they have different heads, or another one than a start model that is no language model.
    """
    heads: dict[Head, Path] = {}
    for folder in folders:
        recorded = read_record(folder)["trained_on"].get(HEAD) if (folder / RECORD).is_file() else None
        heads.setdefault(head_of(json.loads(recorded) if recorded else None), folder)
    if len(heads) > 1:
        different = " and ".join(f"{folder} has a {head}" for head, folder in heads.items())
        raise ValueError(f"{different}: they are not checkpoints of one model")
    for head, folder in heads.items():
        try:
            shape = shape.with_head(head)
        except ValueError as error:
            raise ValueError(f"{folder} has a {head}: {error}") from error
    return shape


def unreadable(folder: Path, error: BaseException) -> str:
    """Why a checkpoint could not be loaded, and how to go on."""
    if "_extra_state" in str(error):  # what Transformer Engine's layers keep beside their weights, and no others
        return (
            f"{folder} was saved with other layers: Transformer Engine's look for an _extra_state that it does not have. "
            "Go on with layers=local, or export it with export_hf and start a new run from the exported model"
        )
    return str(damaged(folder, f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"))


def damaged(folder: Path, why: str) -> ValueError:
    """The error for a checkpoint that training cannot go on from."""
    return ValueError(
        f"{folder} cannot be read ({why}): its files are damaged or missing. Restore them, or set it aside to go on from "
        "the checkpoint before it"
    )


def read_record(folder: Path) -> dict[str, Any]:
    """Raises ValueError when there is none, or none that can be read."""
    path = folder / RECORD
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} has no {RECORD}, so nothing says whether it is whole. If you trust its files as they are, write it: "
            f"python -m nemo_ext.megatron.checkpoint_files {folder}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): use another checkpoint, or restore it") from error
    if not isinstance(content, dict) or not {"trained_on", "files"} <= content.keys():
        raise ValueError(f"{path} is damaged (it is not a record of a checkpoint): use another one, or restore it")
    return content


def why_damaged(folder: Path, share: int = 0, shares: int = 1) -> str | None:
    """The first file that is not what was saved; None when all are. Of several processes each looks at its share.

    Raises ValueError when nothing says what was saved.
    """
    recorded: dict[str, dict[str, Any]] = read_record(folder)["files"]
    mine = sorted(recorded)[share::shares]
    for name in mine:
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != recorded[name]["bytes"]:
            return f"{path} has {path.stat().st_size} bytes instead of {recorded[name]['bytes']}"
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for name, found in zip(mine, pool.map(file_hash, [folder / name for name in mine]), strict=True):
            if found != recorded[name]["xxh128"]:
                return f"{folder / name} holds other bytes than were saved"
    return None


def require_whole(folder: Path) -> None:
    """Raises ValueError, naming the file, unless every file of the checkpoint is what was saved."""
    if why := why_damaged(folder):
        raise ValueError(f"{why}: use another checkpoint, or restore the file")


def main(argv: list[str]) -> int:
    if len(argv) != 2 or not Path(argv[1], ".metadata").is_file():
        raise SystemExit("usage: python -m nemo_ext.megatron.checkpoint_files <run>/train/checkpoints/step_<number>")
    folder = Path(argv[1])
    head = read_model(folder.parent)[1].head if (folder.parent / MODEL).is_file() else Vocabulary()
    write_record(folder, {} if head == Vocabulary() else {HEAD: described(head)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
