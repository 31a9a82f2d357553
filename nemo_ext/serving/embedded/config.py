"""conf/server/embedded.yaml. Light imports only."""

from dataclasses import dataclass

from nemo_ext.serving.server import Server

DTYPES = ("float64", "float32")


@dataclass(kw_only=True)
class Config(Server):
    kind: str = "embedded"
    max_batch_size: int = 128
    """Sequences decoded together."""
    max_queue: int = 4096
    """Sequences waiting for a slot; more are answered 429."""
    max_prefill: int = 32
    """Distinct prompts admitted in one step."""
    threads: int = 1
    """torch threads; a second one pays only on an idle machine, and its results may differ from one thread's."""
    compute_dtype: str = "float32"
    """float32 or float64. In both a sequence gets the same bits alone and in any batch, so that reruns sample the same
    tokens; checked when the server starts, which takes float64 where float32 fails. float64: half as fast, and closer
    to the exact result."""
    context_length: int | None = None
    """Tokens; None: the model's. The key-value cache takes memory only as far as sequences reach."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compute_dtype not in DTYPES:
            raise ValueError(f"server.compute_dtype={self.compute_dtype!r}; it may be one of {DTYPES}")
