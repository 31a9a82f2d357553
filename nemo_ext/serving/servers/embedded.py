"""Our own CPU server for small Llama checkpoints (nemo_ext/serving/embedded); the default where there is no GPU."""

import socket
from collections.abc import Callable
from dataclasses import dataclass

from nemo_ext.model import Model
from nemo_ext.serving.server import Server

DTYPES = ("float64", "float32")


@dataclass(kw_only=True)
class Config(Server):
    kind: str = "embedded"
    max_batch_size: int = 64
    """Sequences decoded together."""
    max_queue: int = 4096
    """Sequences waiting for a slot; more are answered 429."""
    max_prefill: int = 32
    """Distinct prompts admitted in one step."""
    threads: int = 1
    """torch threads; a second one pays only on an idle machine."""
    compute_dtype: str = "float64"
    """float64: reruns sample the same tokens however they are batched. float32: faster, and they may not."""
    context_length: int | None = None
    """Tokens; None: the model's. The key-value cache takes memory only as far as sequences reach."""

    def __post_init__(self) -> None:
        if self.compute_dtype not in DTYPES:
            raise ValueError(f"server.compute_dtype={self.compute_dtype!r}; it may be one of {DTYPES}")


def run(cfg: Config, model: Model, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve in this process on a bound socket until a signal; imports torch only here."""
    from nemo_ext.serving.embedded import run as process

    process.run(cfg, model, listener, on_ready)
