"""manifest.json and _DONE: what a stage read, made and dropped, with what, and that it is whole.

_DONE is written last. It holds the hash of the stage's config and of every file it read or wrote, models included, so that
a rerun can tell a finished stage from one whose config or files have changed since: recipes/guides/lineage.md has the graph.
"""

import glob
import json
import os
import re
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_ext.records.file_records import TICK_NS, describe_files, difference
from nemo_ext.records.files import write_json_atomic

MANIFEST, DONE = "manifest.json", "_DONE"
OUTPUT_FILES, DROPPED_FILES = "output*.jsonl", "dropped*.jsonl"  # where a stage's rows lie
SET_ASIDE = re.compile(r"\.old\d+(/|$)")
"""Marks the path of results that redo=true has set aside."""
KINDS = {"inputs": "input", "model_files": "model file", "outputs": "output", "beside": "file"}
"""Kinds of files that _DONE records. `beside`: the manifest and the dropped rows, which no stage reads."""


@dataclass(kw_only=True)
class Facts:
    """What a stage's `run` returns about itself; the rest of the manifest is the same for every stage."""

    inputs: list[Path] = field(default_factory=list)
    """Files read. A later change of their content makes the stage out of date."""
    inputs_came_meanwhile: bool = False
    """They were fetched, or waited for, while it ran; of other stages, an input written meanwhile was changed."""
    listed: list[str] = field(default_factory=list)
    """Patterns that `inputs` are the matches of: another file that matches makes the stage out of date, too."""
    model_files: list[Path] = field(default_factory=list)
    """The same of the models it used: weights, config, tokenizer, chat template (nemo_ext/models/model_files.py). `_DONE`
    lists them; the manifest has the fingerprint in `models`: a large model has hundreds, and a stage thousands of tasks."""
    outputs: list[Path] = field(default_factory=list)
    """Files written; one that is changed or gone is made again."""
    rows_in: int | None = None
    rows_made: int = 0
    """Beyond one of each row in: a row may become several."""
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
    began_ns: int | None = None,
) -> None:
    """Write manifest.json, then _DONE.

    Args:
        image: what nemo_ext/records/image_versions.py says of the container; empty outside of one.
        began_ns: when the stage began, by the clock of its folder's disk.

    Raises:
        AssertionError: rows in and made are not rows out plus rows dropped; a stage lost or invented some.
        ValueError: its files do not hold the rows that were counted, or an input was changed while it ran.
    """
    _check_sum(stage, facts)
    inputs, model_files, outputs = map(describe_files, (facts.inputs, facts.model_files, facts.outputs))
    _check_rows(stage, facts, [each for each in outputs if Path(each["path"]).parent == folder])
    if began_ns is not None and not facts.inputs_came_meanwhile:
        _check_inputs(stage, folder, inputs, began_ns)
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
        **({"rows_made": facts.rows_made} if facts.rows_made else {}),
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
    beside = describe_files([folder / MANIFEST, *sorted(folder.glob(DROPPED_FILES))])
    files = {
        "inputs": inputs,
        "listed": facts.listed,
        "model_files": model_files,
        "outputs": outputs,
        "beside": beside,
    }
    write_json_atomic(folder / DONE, {"config_hash": config_hash, **files})


def _check_sum(stage: str, facts: Facts) -> None:
    if facts.rows_in is None or facts.rows_out is None:
        return
    dropped = sum(facts.dropped.values())
    made = f" and {facts.rows_made} made of them" if facts.rows_made else ""
    assert facts.rows_in + facts.rows_made == facts.rows_out + dropped, (
        f"{stage}: {facts.rows_in} rows in{made}, {facts.rows_out} out and {dropped} dropped do not add up"
    )


def _check_rows(stage: str, facts: Facts, outputs: list[dict[str, Any]]) -> None:
    """Raises ValueError unless the files hold as many rows as were counted when they were written."""
    counts = [each["rows"] for each in outputs if Path(each["path"]).match(OUTPUT_FILES)]
    if facts.rows_out is not None and counts and sum(counts) != facts.rows_out:
        raise ValueError(
            f"{stage}: {facts.rows_out} rows were written, and its files hold {sum(counts)}: something else has changed "
            "them. Run it again with redo=true"
        )


def _check_inputs(stage: str, folder: Path, inputs: list[dict[str, Any]], began_ns: int) -> None:
    """Raises ValueError when one was written since the stage began: read as it was, it would be recorded as it is."""
    for each in inputs:
        if each["mtime_ns"] > began_ns + TICK_NS and folder not in Path(each["path"]).parents:
            raise ValueError(
                f"{stage}: {each['path']} was changed while it was read, so nothing says what came of it. Run the same "
                "command again"
            )


def read(folder: Path) -> dict[str, Any]:
    """Raises ValueError when the stage has not finished."""
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} has no {MANIFEST}: that stage has not finished")
    return json.loads((folder / MANIFEST).read_text())


def out_of_date(folder: Path, config_hash: str) -> str | None:
    """Why a task must run: None when `_DONE` matches its config and every file it read or wrote."""
    done = _done(folder)
    if done is None:
        return "not finished"
    if done["config_hash"] != config_hash:
        return "its config changed"
    return _difference(done, tuple(KINDS)) or _new_input(done, folder)


def inputs_changed(folder: Path) -> str | None:
    """Which file that a finished stage read has changed since; None when all are as they were, or it has not finished."""
    done = _done(folder)
    return None if done is None else _difference(done, ("inputs", "model_files")) or _new_input(done, folder)


def outputs_changed(folder: Path) -> str | None:
    """Which file that a stage wrote has changed since; None when all are as they were."""
    done = _done(folder)
    return "not finished" if done is None else _difference(done, ("outputs", "beside"))


def finished_config(folder: Path) -> str | None:
    """The config hash of what lies there whole; None when nothing does."""
    done = _done(folder)
    return None if done is None else str(done["config_hash"])


def _done(folder: Path) -> dict[str, Any] | None:
    """None: it is not there, or does not say what a _DONE says, and so vouches for nothing."""
    try:
        done = json.loads((folder / DONE).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(done, dict) or not {"config_hash", "listed", *KINDS} <= done.keys():
        return None
    records = [done[kind] for kind in KINDS]
    if not isinstance(done["listed"], list) or not all(isinstance(each, str) for each in done["listed"]):
        return None
    return done if all(isinstance(each, list) and all(map(_is_record, each)) for each in records) else None


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("path"), str)
        and {"path", "bytes", "mtime_ns", "ctime_ns", "inode", "sha256"} <= value.keys()
    )


def _difference(done: dict[str, Any], kinds: tuple[str, ...]) -> str | None:
    for kind in kinds:
        for recorded in done[kind]:
            if reason := difference(recorded):
                return f"{KINDS[kind]} {recorded['path']} {reason}"
    return None


def _new_input(done: dict[str, Any], folder: Path) -> str | None:
    """What redo=true set aside, and what the stage itself wrote, is not an input."""
    known = {each["path"] for each in done["inputs"]}
    for pattern in done["listed"]:
        for found in sorted(set(glob.glob(pattern)) - known):
            path = Path(found)
            if path.is_file() and folder not in path.parents and not SET_ASIDE.search(found):
                return f"input {path} is new"
    return None


def code_version() -> str:
    """The commit, with `+changes` when the tree differs from it; `unknown` outside a git checkout.

    In a container the launcher has said it: images may lack git, or not trust the checkout's owner.
    """
    if given := os.environ.get("RECIPE_CODE_VERSION"):
        return given
    root = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.stdout.strip()
