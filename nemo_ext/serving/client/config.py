"""Settings of the client's patience. Light imports only: stages put this in their Config."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ClientConfig:
    timeout_s: float = 1800.0
    """Limit of one attempt; giving it up also frees the server's slot."""
    max_attempts: int = 8
    """Attempts of one request, over all endpoints, before it is given up as failed."""
    max_given_up: float = 0.001
    """Share of a stage's requests that may be given up; their rows are dropped. More of them fail the stage, and a
    rerun tries them again."""
    backoff_s: float = 0.5
    """Mean wait before the second attempt; doubles each time, up to 30 s. Also between looks at a server that is out."""
    patience_s: float = 3600.0
    """How long a request waits, all waits together, because servers ask for it (Retry-After), which uses up no
    attempts. When one asks for more, the run stops."""
    max_permanent_in_a_row: int = 50
    """Refused requests in a row, without a success between them, that stop the run: the prompts or the model name are
    wrong."""
    all_down_s: float = 120.0
    """Stop the run when no endpoint has answered for this long."""
    health_interval_s: float = 10.0
    """Between looks at the /health of a server with open requests that has answered none since the last look."""
    stall_s: float = 900.0
    """A server that has answered nothing for so long is taken for hung: above the longest completion, far below a job."""
    hedge_after_s: float | None = None
    """Send a request that has waited this long to a second server too, and take the first answer; None: never."""
    keepalive_s: float = 4.0
    """Idle connections are closed by us after this; TensorRT-LLM's server closes them at 5 s, which races."""
    probe: bool = True
    """Ask the servers what they honour (`n`, `seed`) before the first request; some 50 tokens."""
    price_per_million_prompt_tokens: float | None = None
    """With it and the next setting the manifest says what the completions cost."""
    price_per_million_generated_tokens: float | None = None
