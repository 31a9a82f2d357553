"""How hard the client tries. Light imports only: stages put this in their Config."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ClientConfig:
    timeout_s: float = 1800.0
    """For one attempt; leaving also frees the server's slot."""
    max_attempts: int = 8
    """Of one request, over all endpoints, before it is given up as failed."""
    backoff_s: float = 0.5
    """Mean wait before the second attempt; doubles each time, up to 30 s. Also the interval of health checks."""
    max_permanent_in_a_row: int = 50
    """So many refused requests with no success between them stop the run: the prompts or the model name are wrong."""
    all_down_s: float = 120.0
    """Stop the run when no endpoint has answered for this long."""
    keepalive_s: float = 4.0
    """Idle connections are closed by us after this; TensorRT-LLM's server closes them at 5 s, which races."""
