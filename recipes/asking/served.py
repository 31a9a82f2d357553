"""The config, processes and address files that all stages share which ask a model."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from nemo_ext.models.model import Model
from nemo_ext.prompts.prompt import Prompt
from nemo_ext.serving import server as servers
from nemo_ext.serving.address import served_path
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.server import GpuServer, Place, Server
from recipes.stage import Process, Stage, main_process


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
    server: dict[str, Any] = field(default=MISSING, metadata={"type_of": servers.type_of})
    """A file of conf/server: `kind` and that kind's fields."""
    any_model: bool = False
    """Take whatever model an external server lists, where server.model names none."""
    reuse_completions: bool = True
    """Take what earlier runs of this stage have paid for, with redo=true set aside as <stage>.old1, where it is the same
    model, prompt, sampling and sample."""
    client: ClientConfig = field(default_factory=ClientConfig, metadata={"decides": False})


def stop_token_ids(cfg: ServedStage, prompt: Prompt) -> tuple[int, ...]:
    """What ends an answer to a chat, sent to servers that take it: the model's files may name another token alone."""
    from nemo_ext.models.answer_end import answer_end_ids

    kind = str(cfg.server["kind"])
    if prompt.template != "chat":
        return ()
    if kind == "external":
        return tuple(cfg.server.get("stop_token_ids") or ())
    return answer_end_ids(cfg.model) if getattr(servers.module_of(kind), "STOP_TOKEN_IDS", False) else ()


def server_processes(cfg: ServedStage, config_path: str) -> list[Process]:
    """The servers this stage starts, one per replica, and its main process.

    Raises:
        ValueError: the servers do not take the GPUs the stage asks for, or cannot be started as they are configured.
    """
    server = servers.load(cfg.server)
    if server.kind == "external":
        servers.module_of("external").endpoints(server)
        return [main_process(config_path)]
    if isinstance(server, GpuServer):
        check_places(cfg, server)
        check_command(cfg, server)
    services = [_service(cfg, server, index, file, config_path) for index, file in enumerate(address_files(cfg))]
    return [*services, main_process(config_path)]


def _service(cfg: ServedStage, server: Server, index: int, file: Path, config_path: str) -> Process:
    """Replica `index`. Nodes are filled in order, so that the first replica is beside the main process."""
    argv = ["python", "-m", "nemo_ext.serving.serve", config_path, "--address-file", str(file)]
    argv += ["--replica", str(index)]
    if cfg.resources.nodes > 1:
        argv += ["--host", "0.0.0.0"]  # noqa: S104 - the main process may be on another node
    common: dict[str, Any] = {"service": True, "ready_file": str(file)}
    if not isinstance(server, GpuServer):
        return Process(f"server-{index}", argv, first_node=index % cfg.resources.nodes, **common)
    per_node = max(1, cfg.resources.gpus // server.gpus_per_node)
    if per_node > 1:
        first = index % per_node * server.gpus_per_node
        argv += ["--gpus", ",".join(map(str, range(first, first + server.gpus_per_node)))]
    return Process(
        f"server-{index}",
        argv,
        ranks=server.tasks,
        nodes=server.nodes,
        first_node=index // per_node * server.nodes,
        mpi=server.launch_mpi,
        **common,
    )


def check_places(cfg: ServedStage, server: GpuServer) -> None:
    """Raises ValueError unless the replicas take exactly the stage's GPUs."""
    nodes, gpus, place = cfg.resources.nodes, cfg.resources.gpus, f"stages.{cfg.name}"
    per_replica = f"server.tp_size={server.tp_size} x server.pp_size={server.pp_size}"
    on = f" on server.nodes={server.nodes} nodes" if server.nodes > 1 else ""
    whole = gpus % server.gpus_per_node == 0 if server.nodes == 1 else gpus == server.gpus_per_node
    if whole and server.replicas * server.gpus == nodes * gpus:
        return
    most = min(server.replicas, gpus // server.gpus) if server.nodes == 1 else 1
    together = next(count for count in range(max(1, most), 0, -1) if server.replicas % count == 0)
    fitting = (
        f"{place}.resources.nodes={server.replicas // together * server.nodes} "
        f"{place}.resources.gpus={together * server.gpus_per_node}"
    )
    raise ValueError(
        f"{place}: server.replicas={server.replicas} of {per_replica} GPUs{on} take {server.replicas * server.gpus} GPUs, "
        f"and {place}.resources has nodes={nodes} x gpus={gpus}. They fit {fitting} (by "
        "default resources are what the server takes); or change server.tp_size or server.replicas"
    )


def check_command(cfg: ServedStage, server: GpuServer) -> None:
    """Raises ValueError for what the server's program would refuse when it starts: a path, say, or a missing template."""
    module = servers.module_of(server.kind)
    options = address_files(cfg)[0].with_suffix(".options.yaml") if module.options(server, cfg.model) else None
    try:
        module.command(server, cfg.model, Place(host="0.0.0.0", port=1, options_path=options, rendezvous="node:1"))  # noqa: S104
    except ValueError as error:
        raise ValueError(f"stages.{cfg.name}: {error}") from error


def address_files(cfg: ServedStage) -> list[Path]:
    return [Path(cfg.output_dir) / f"server-{i}.json" for i in range(servers.load(cfg.server).replicas)]


def describe_server(cfg: ServedStage) -> dict[str, Any]:
    """Kind and version, for manifests and evaluation contracts: what the servers said of themselves when they answered."""
    kind = str(cfg.server["kind"])
    if kind == "embedded":
        return {"kind": kind, "version": servers.module_of(kind).version()}
    files = [] if kind == "external" else [served_path(path) for path in address_files(cfg)]
    said = [json.loads(path.read_text())["version"] for path in files if path.is_file()]
    return {"kind": kind, "version": ", ".join(sorted({version for version in said if version})) or "unknown"}
