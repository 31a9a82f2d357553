"""What the stages that talk to a model share: the server's processes, its endpoints, and completions that outlive a kill."""

import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.model import Model
from nemo_ext.serving import server as servers
from nemo_ext.serving.client_config import ClientConfig
from recipes.stage import Process, Stage, main_process

if TYPE_CHECKING:
    from nemo_ext.serving.client import Stats
    from nemo_ext.serving.requests import Request
    from nemo_ext.serving.store import CompletionStore

COMPLETIONS = "completions.jsonl"


@dataclass(kw_only=True)
class SamplingConfig:
    temperature: float = 0.0
    """0: greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    max_tokens: int = 2048


@dataclass(kw_only=True)
class ServedStage(Stage):
    model: Model = MISSING
    """Which model is served."""
    server: dict[str, Any] = MISSING
    """A file of conf/server: `kind` and that kind's fields."""
    client: ClientConfig = field(default_factory=ClientConfig)


def server_processes(cfg: ServedStage, config_path: str) -> list[Process]:
    """The servers this stage starts, one per replica, and its main process."""
    server = servers.load(cfg.server)
    if server.kind == "external":
        return [main_process(config_path)]
    files = address_files(cfg)
    argv = ["python", "-m", "nemo_ext.serving.serve", config_path, "--address-file"]
    services = [
        Process(f"server-{i}", [*argv, str(file), "--replica", str(i)], service=True, ready_file=str(file))
        for i, file in enumerate(files)
    ]
    return [*services, main_process(config_path)]


def address_files(cfg: ServedStage) -> list[Path]:
    return [Path(cfg.output_dir) / f"server-{i}.json" for i in range(servers.load(cfg.server).replicas)]


def describe_server(cfg: ServedStage) -> dict[str, Any]:
    """Kind and version, for manifests and evaluation contracts."""
    kind = str(cfg.server["kind"])
    version = f"torch {importlib.metadata.version('torch')}" if kind == "embedded" else "as served"
    return {"kind": kind, "version": version}


def complete_all(
    cfg: ServedStage, store: "CompletionStore", requests: Callable[[], Iterable["Request"]], total: int, unit: str
) -> "Stats | None":
    """Run every request that the store has no completion of. Returns None when there was none to run.

    Raises:
        ValueError: some requests failed for now (the server was unreachable or overloaded): what succeeded is kept,
            and a rerun tries those again.
    """
    from nemo_ext.progress import Progress
    from nemo_ext.serving.address import wait_for
    from nemo_ext.serving.client import complete

    waiting = (request for request in requests() if request.key not in store)
    first = next(iter(waiting), None)
    if first is None:
        return None
    server = servers.load(cfg.server)
    endpoints = (
        servers.module_of("external").endpoints(server)
        if server.kind == "external"
        else wait_for(address_files(cfg), server.startup_timeout_s)
    )
    progress = Progress(Path(cfg.output_dir), unit)
    before = len(store)
    failed: list[str] = []

    def keep(completion: Any) -> None:
        if completion.error is not None and completion.retryable:
            failed.append(completion.error)
        else:
            store.append(completion)
        progress.update(len(store), total, failed=len(failed))

    progress.update(before, total)
    stats = complete(_chain(first, waiting), endpoints, cfg.client, keep)
    if failed:
        raise ValueError(
            f"{cfg.name}: {len(failed)} of {stats.done} requests failed; the last: {failed[-1]}. Rerun for them."
        )
    return stats


def _chain(first: "Request", rest: Iterable["Request"]) -> Iterable["Request"]:
    yield first
    yield from rest
