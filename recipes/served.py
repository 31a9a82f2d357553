"""What the stages that talk to a model share: their config, the server's processes and its address files."""

import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from nemo_ext.model import Model
from nemo_ext.serving import server as servers
from nemo_ext.serving.client_config import ClientConfig
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
