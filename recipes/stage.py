"""The base of every stage's Config, and what a stage asks of the place it runs in. Light imports only."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

if TYPE_CHECKING:
    from nemo_ext.rows.row_input import RowFiles


@dataclass(kw_only=True)
class Resources:
    """What a stage needs. Where that comes from is conf/cluster's business."""

    nodes: int = 1
    gpus: int = 0
    """Per node."""
    image: str = "base"
    """A name in containers/images.yaml."""
    time: str = "04:00:00"
    """Wall-clock limit, HH:MM:SS."""


@dataclass(kw_only=True)
class Stage:
    """Base of every stage's Config."""

    splits_rows: ClassVar[bool] = False
    """Whether `shards` may be more than 1: each then does its share of the rows."""
    uses: str = MISSING
    """The name of the stage's file in recipes/stages/<group>/; filled by the launcher."""
    name: str = MISSING
    """What the recipe calls this stage; filled by the launcher."""
    output_dir: str = MISSING
    """Where it writes: <run_dir>/<name>, or a folder below that per shard or variant; filled by the launcher."""
    after: list[str] = field(default_factory=list)
    """Stages listed above this one that must have finished."""
    resources: Resources = field(default_factory=Resources, metadata={"decides": False})
    shards: int = 1
    """Tasks that split the rows by a hash of their id: a Slurm array on a cluster, a bounded pool here."""
    shard: int = 0
    """The number of this shard; filled by the launcher."""
    variants: dict[str, Any] = field(default_factory=dict)
    """Tasks that differ in config: name -> the keys that differ."""


@dataclass(kw_only=True)
class ReadsRows(Stage):
    """A stage whose rows may be a person's own."""

    columns: Any = None
    """What a column is here -> its name in the file, as {problem: query, generation: response}; null: not taken."""
    split: str | None = None
    """The split whose files are read, in a folder or on the hub; several as train+validation."""


def row_files(cfg: ReadsRows, *sources: str) -> "RowFiles":
    """The files of rows that `sources` name, to be read as the stage's config says; raises ValueError."""
    from nemo_ext.rows.row_input import row_files

    return row_files(cfg.name, sources, cfg.split, cfg.columns, Path(cfg.output_dir))


@dataclass(kw_only=True)
class RowStage(ReadsRows):
    """A stage that passes rows through a function, in parts: its shards share the parts of the input."""

    splits_rows: ClassVar[bool] = True
    workers: int | None = field(default=None, metadata={"decides": False})
    """Processes; the result does not depend on it. None: the cores there are, and one where the input is small."""


def asked_servers(content: dict[str, Any]) -> list[str]:
    """The addresses of a stage that takes whatever model is there (`any_model`). At others there may be another one: a
    finished stage asks them which, and takes what it has paid for where it is the same."""
    server = content.get("server")
    if not content.get("any_model") or not isinstance(server, dict) or server.get("model"):
        return []
    return sorted(server.get("urls") or [])


@dataclass(frozen=True)
class Process:
    """One program of a task. `argv[0]` is `python`, which the executor replaces by the interpreter there."""

    name: str
    argv: list[str]
    ranks: int = 1
    """Copies that form one process group (RANK, WORLD_SIZE, ... are set)."""
    service: bool = False
    """Runs as long as the main process does; its death fails the task."""
    ready_file: str | None = None
    """A service writes it when it is ready; the executor removes what an earlier run left there."""
    nodes: int = 1
    """For a service: the nodes its `ranks` are spread over, as many on each. When one of them ends, all do."""
    first_node: int = 0
    """For a service: the first of the task's nodes that it uses."""
    mpi: str | None = None
    """srun's --mpi, where the ranks speak MPI."""


def main_process(config_path: str, ranks: int = 1) -> Process:
    return Process("main", ["python", "-m", "recipes.run_stage", config_path], ranks)


def require_places(cfg: Stage, ranks: int) -> None:
    """Raises ValueError where a stage that wants GPUs has another number of them than its topology has processes."""
    places = cfg.resources.nodes * cfg.resources.gpus
    if places and places != ranks:
        raise ValueError(
            f"stages.{cfg.name}: {cfg.resources.nodes} nodes x {cfg.resources.gpus} GPUs, but TP x PP x CP x DP is "
            f"{ranks} processes; change resources or data_parallel_size"
        )
