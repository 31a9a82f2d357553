"""What stages share whose models may run Python: settings, the sandbox's process, the loop of model and code."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_ext.files import sha256_json
from nemo_ext.sandbox.config import SandboxConfig, ToolLoopConfig
from recipes.served import ServedStage
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

    @property
    def tools_variant(self) -> str:
        """What a completion's key depends on besides its prompt and sampling."""
        return sha256_json(asdict(self.tools)) if self.use_tools else ""


def sandbox_processes(cfg: ToolStage, config_path: str) -> list[Process]:
    if not cfg.use_tools:
        return []
    argv = ["python", "-m", "nemo_ext.sandbox.service", config_path, "--address-file", str(_address_file(cfg))]
    return [Process("sandbox", argv, service=True, ready_file=str(_address_file(cfg)))]


def _address_file(cfg: ToolStage) -> Path:
    return Path(cfg.output_dir) / "sandbox.json"


def tool_loop(cfg: ToolStage) -> "ToolLoop":
    """Once the stage's sandbox is up.

    Raises:
        ValueError: it did not start in SANDBOX_TIMEOUT_S.
    """
    from nemo_ext.sandbox.tool_loop import ToolLoop
    from nemo_ext.serving.address import wait_for

    (sandbox,) = wait_for([_address_file(cfg)], SANDBOX_TIMEOUT_S)
    return ToolLoop([sandbox.url], cfg.tools)
