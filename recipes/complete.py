"""Completions of a stage's requests that outlive a kill."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.serving import server as servers
from recipes.served import ServedStage, address_files

if TYPE_CHECKING:
    from nemo_ext.serving.client import Stats
    from nemo_ext.serving.requests import Request
    from nemo_ext.serving.store import CompletionStore

COMPLETIONS = "completions.jsonl"


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
    endpoints = [replace(endpoint, concurrency=server.concurrency) for endpoint in endpoints]
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
