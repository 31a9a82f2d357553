"""A server somebody else runs: any OpenAI-compatible URL. Nothing is started."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.server import Server


@dataclass(kw_only=True)
class Config(Server):
    kind: str = "external"
    urls: list[str] = field(default_factory=list)
    """Base addresses without /v1, for example http://node17:8000; requests are spread over them."""
    model: str = MISSING
    """The id the server lists under /v1/models."""
    api_key_env: str | None = None
    """NAME of the environment variable that holds the key; the key itself never goes into a file."""


def endpoints(cfg: Config) -> list[Endpoint]:
    """Raises ValueError when there is no URL or one is malformed."""
    if not cfg.urls:
        raise ValueError("server.urls is empty; give at least one, for example [http://localhost:8000]")
    for url in cfg.urls:
        if not url.startswith(("http://", "https://")) or url.rstrip("/").endswith("/v1"):
            raise ValueError(f"server.urls: {url!r}; write http(s)://host:port without /v1")
    return [Endpoint(url.rstrip("/"), cfg.model, cfg.api_key_env) for url in cfg.urls]
