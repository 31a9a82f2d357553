"""manifest.json and _DONE: what a stage read, made and dropped, with what, and that it is whole.

_DONE is written last. It holds the hash of the stage's config and of every input and output file, so that a rerun can
tell a finished stage from one whose config or inputs have changed since.
"""

import hashlib
import json
import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_ext.files import sha256_file, write_json_atomic
from nemo_ext.rows import describe_file

MANIFEST, DONE = "manifest.json", "_DONE"
FINGERPRINT_BYTES = 1 << 20


@dataclass(kw_only=True)
class Facts:
    """What a stage's `run` returns about itself; the rest of the manifest is the same for every stage."""

    inputs: list[Path] = field(default_factory=list)
    """Files read. A later change of their content makes the stage out of date."""
    outputs: list[Path] = field(default_factory=list)
    rows_in: int | None = None
    rows_out: int | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    models: dict[str, Any] = field(default_factory=dict)
    """Model name -> fingerprint."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Prompt name -> hash."""
    server: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    """Anything else worth showing: accuracies, counts, rates."""
    scratch: list[Path] = field(default_factory=list)
    """Folders of use to a killed run alone, which are removed once the stage is whole."""


def write(
    folder: Path,
    stage: str,
    uses: str,
    config_hash: str,
    facts: Facts,
    seconds: float,
    image: dict[str, Any] | None = None,
) -> None:
    """Write manifest.json, then _DONE. `image`: what nemo_ext/image_versions.py says of the container; empty outside of one.

    Raises:
        AssertionError: rows in are not rows out plus rows dropped; a stage lost or invented some.
    """
    if facts.rows_in is not None and facts.rows_out is not None:
        dropped = sum(facts.dropped.values())
        assert facts.rows_in == facts.rows_out + dropped, (
            f"{stage}: {facts.rows_in} rows in, {facts.rows_out} out and {dropped} dropped do not add up"
        )
    inputs, outputs = ([describe_file(path) for path in paths] for paths in (facts.inputs, facts.outputs))
    manifest = {
        "stage": stage,
        "uses": uses,
        "config_hash": config_hash,
        "code_version": code_version(),
        "image": image or {},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(seconds, 3),
        "inputs": inputs,
        "outputs": outputs,
        "rows_in": facts.rows_in,
        "rows_out": facts.rows_out,
        "dropped": dict(sorted(facts.dropped.items())),
        "models": facts.models,
        "prompts": facts.prompts,
        "server": facts.server,
        "seeds": facts.seeds,
        "tokens": facts.tokens,
        "figures": facts.figures,
    }
    write_json_atomic(folder / MANIFEST, manifest)
    write_json_atomic(folder / DONE, {"config_hash": config_hash, "inputs": inputs, "outputs": outputs})


def read(folder: Path) -> dict[str, Any]:
    """Raises ValueError when the stage has not finished."""
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} has no {MANIFEST}: that stage has not finished")
    return json.loads((folder / MANIFEST).read_text())


def out_of_date(folder: Path, config_hash: str) -> str | None:
    """Why a task must run: None when `_DONE` matches its config, its inputs and its outputs.

    A file whose size and modification time are as recorded is taken to be unchanged; otherwise its content decides.
    """
    try:
        done = json.loads((folder / DONE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return "not finished"
    if done["config_hash"] != config_hash:
        return "its config changed"
    for kind in ("inputs", "outputs"):
        for recorded in done[kind]:
            reason = _changed(recorded)
            if reason:
                return f"{kind[:-1]} {recorded['path']} {reason}"
    return None


def _changed(recorded: dict[str, Any]) -> str | None:
    path = Path(recorded["path"])
    try:
        stat = path.stat()
    except FileNotFoundError:
        return "is gone"
    if (stat.st_size, stat.st_mtime_ns) == (recorded["bytes"], recorded["mtime_ns"]):
        return None
    return "changed" if sha256_file(path) != recorded["sha256"] else None


def code_version() -> str:
    """The commit, with `+changes` when the tree differs from it; `unknown` outside a git checkout.

    In a container the launcher has said it: images may lack git, or not trust the checkout's owner.
    """
    if told := os.environ.get("RECIPE_CODE_VERSION"):
        return told
    root = Path(__file__).resolve().parent.parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.stdout.strip()


def model_fingerprint(folder: str | Path) -> str:
    """Identifies a local HF folder: config, tokenizer, and of each weight file its name, size, first and last MiB.

    Hashing all of a 405B model would read 800 GB for every stage. A hub id that is not a folder identifies itself.
    """
    path = Path(folder)
    if not path.is_dir():
        return str(folder)
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        if (path / name).is_file():
            digest.update((path / name).read_bytes())
    for weights in sorted(path.glob("*.safetensors")):
        size = weights.stat().st_size
        digest.update(f"{weights.name}:{size}".encode())
        with weights.open("rb") as handle:
            digest.update(handle.read(FINGERPRINT_BYTES))
            handle.seek(max(0, size - FINGERPRINT_BYTES))
            digest.update(handle.read())
    return digest.hexdigest()[:16]
