"""Stages whose models may run Python: settings, the sandbox's process, the loop of model and code."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nemo_ext.records.files import sha256_json
from nemo_ext.sandbox.config import SandboxConfig, ToolLoopConfig
from recipes.asking.served import ServedStage, server_processes
from recipes.stage import Process

if TYPE_CHECKING:
    from nemo_ext.sandbox.tool_loop import ToolLoop

SANDBOX_TIMEOUT_S = 300.0


@dataclass(kw_only=True)
class ToolStage(ServedStage):
    use_tools: bool = False
    """Run the Python that the model writes, and let it go on from the result."""
    tools: ToolLoopConfig = field(default_factory=ToolLoopConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    sandbox_urls: list[str] = field(default_factory=list, metadata={"decides": False})
    """Sandboxes that run already, for example http://node17:20713; `sandbox` is then theirs. None: one is started."""
    sandbox_token_env: str | None = field(default=None, metadata={"decides": False})
    """NAME of the environment variable that holds the token of sandbox_urls; on a cluster also in cluster.env_from."""

    @property
    def tools_variant(self) -> str:
        """What a completion's key depends on besides its prompt and sampling."""
        return sha256_json(asdict(self.tools)) if self.use_tools else ""


def sandbox_processes(cfg: ToolStage, config_path: str) -> list[Process]:
    """Raises ValueError when sandbox_urls are no URLs, or their token has no name."""
    if not cfg.use_tools:
        return []
    if cfg.sandbox_urls:
        _check_urls(cfg)
        return []
    argv = ["python", "-m", "nemo_ext.sandbox.service", config_path, "--address-file", str(_address_file(cfg))]
    return [Process("sandbox", argv, service=True, ready_file=str(_address_file(cfg)))]


def tool_stage_processes(cfg: ToolStage, config_path: str) -> list[Process]:
    return [*sandbox_processes(cfg, config_path), *server_processes(cfg, config_path)]


def _token_key(cfg: ToolStage) -> str:
    return f"stages.{cfg.name}.sandbox_token_env"


def _check_urls(cfg: ToolStage) -> None:
    for url in cfg.sandbox_urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in url or parts.query or parts.fragment:
            shown = url.partition("?")[0].rpartition("@")[2]  # not what may be a password or the token
            raise ValueError(f"stages.{cfg.name}.sandbox_urls: {shown!r}; write http(s)://host:port and nothing else")
    if cfg.sandbox_token_env is None or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", cfg.sandbox_token_env):
        raise ValueError(
            f"{_token_key(cfg)}: give the NAME of the environment variable that holds the token of sandbox_urls, such as"
            " SANDBOX_TOKEN, and not the token itself"
        )


def _address_file(cfg: ToolStage) -> Path:
    return Path(cfg.output_dir) / "sandbox.json"


def tool_loop(cfg: ToolStage) -> "ToolLoop":
    """Once the stage's sandbox is up.

    Raises:
        ValueError: it did not start in SANDBOX_TIMEOUT_S, or there is no token for it.
    """
    from nemo_ext.sandbox import access
    from nemo_ext.sandbox.tool_loop import ToolLoop
    from nemo_ext.serving.address import wait_for

    if cfg.sandbox_urls:
        token = access.from_environment(cfg.sandbox_token_env, _token_key(cfg))
        return ToolLoop([url.rstrip("/") for url in cfg.sandbox_urls], cfg.tools, token)
    (sandbox,) = wait_for([_address_file(cfg)], SANDBOX_TIMEOUT_S)
    return ToolLoop([sandbox.url], cfg.tools, access.read(_address_file(cfg)))
