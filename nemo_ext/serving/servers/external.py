"""A server somebody else runs: any OpenAI-compatible URL. Nothing is started."""

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from nemo_ext.serving.address import Dialect, Endpoint
from nemo_ext.serving.server import Server

MAX_TOKENS_KEYS = ("max_tokens", "max_completion_tokens")


@dataclass(kw_only=True)
class Config(Server):
    kind: str = "external"
    urls: list[str] = field(default_factory=list, metadata={"decides": False})
    """Base addresses, for example http://node17:8000; a /v1 at the end is left out. Requests are spread over them."""
    model: str | None = None
    """The id the server lists under /v1/models; None: the only one it lists."""
    api_key_env: str | None = field(default=None, metadata={"decides": False})
    """NAME of the environment variable that holds the key; the key itself never goes into a file."""
    seed: bool = True
    """Whether to send a seed: some servers refuse requests that have one."""
    max_tokens_key: str = "max_tokens"
    """max_completion_tokens for servers that refuse max_tokens."""
    stop_token_ids: list[int] = field(default_factory=list)
    """Tokens that end an answer to a chat besides those that the server knows; for servers that take them, as vLLM,
    SGLang and TensorRT-LLM do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replicas != 1:
            raise ValueError(f"server.replicas={self.replicas}: nothing is started; give several server.urls instead")
        if self.max_tokens_key not in MAX_TOKENS_KEYS:
            raise ValueError(f"server.max_tokens_key={self.max_tokens_key!r}; it may be one of {MAX_TOKENS_KEYS}")
        # what was given is not shown: it may be the key
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise ValueError(
                "server.api_key_env: give the NAME of an environment variable in capitals, such as OPENAI_API_KEY, and "
                "not the key itself"
            )


def endpoints(cfg: Config) -> list[Endpoint]:
    """Raises ValueError when there is no URL or one is malformed."""
    if not cfg.urls:
        raise ValueError("server.urls is empty; give at least one, for example server.urls=[http://localhost:8000]")
    dialect = Dialect(cfg.seed, cfg.max_tokens_key)
    return [Endpoint(_base(url), cfg.model or "", cfg.api_key_env, cfg.concurrency, dialect) for url in cfg.urls]


def _base(url: str) -> str:
    """Without the /v1 that people paste along."""
    try:
        parts = urlsplit(url)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        port_is_one = False
    if not port_is_one or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        shown = re.sub(r"^.*@", "...@", url.partition("?")[0])
        raise ValueError(f"server.urls: {shown!r}; write http(s)://host:port, with or without /v1")
    if parts.username or parts.password:
        raise ValueError(
            f"server.urls: the one of {parts.hostname} holds a user or password, and this file is kept; put the key in "
            "an environment variable and its name in server.api_key_env"
        )
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
