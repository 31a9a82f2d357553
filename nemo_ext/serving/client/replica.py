"""One server of a run: its connections, how much is open there, and whether it may be used."""

import time
from typing import Any

import aiohttp
import orjson
from yarl import URL

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client.concurrency import Concurrency
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.http import MAX_ABOUT, Mask, ask, headers_for, key_of

CONNECT_TIMEOUT_S = 30.0
HEALTH_TIMEOUT_S = 10.0
TRIAL_TIMEOUT_S = 120.0


class Replica:
    """`in_flight` requests are open; `up`: it takes new ones; `stalled`: it left because it accepted and never answered."""

    def __init__(self, endpoint: Endpoint, config: ClientConfig) -> None:
        """Raises ValueError when the variable named by api_key_env is not set."""
        self.endpoint = endpoint
        self.concurrency = Concurrency(endpoint.concurrency)
        self.in_flight = 0
        self.up = True
        self.stalled = False
        self.num_answered = 0
        self.last_reply = time.monotonic()
        """When the last reply came, or the first of the open requests went out."""
        self.reply_model: str | None = None
        paths = ("/v1/completions", "/v1/chat/completions", "/pooling", "/v1/models", "/health")
        self.urls = {path: URL(endpoint.url + path) for path in paths}
        self._config = config
        self._headers = headers_for(endpoint)
        self.mask = Mask(key_of(endpoint))
        self.told_to_wait = False
        self.session = self._connect()

    def _connect(self) -> aiohttp.ClientSession:
        """Connections are this replica's alone: closing them ends what is open there and nothing else."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=self._config.keepalive_s, ttl_dns_cache=300)
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        proxied = self.endpoint.url.startswith("https://")  # not between nodes
        return aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=proxied, headers=self._headers)

    @property
    def free(self) -> bool:
        return self.up and self.in_flight < int(self.concurrency.limit)

    @property
    def load(self) -> float:
        return self.in_flight / self.concurrency.limit

    def begin(self) -> None:
        if self.in_flight == 0:
            self.last_reply = time.monotonic()
        self.in_flight += 1

    def speaks_for(self, model: str | None) -> bool:
        """Whether a reply may come from here: gateways name a model in their own way, but always in the same."""
        if model is None or model == self.endpoint.model:
            return True
        self.reply_model = self.reply_model or model
        return model == self.reply_model

    async def hang_up(self) -> None:
        """Close every connection: whatever is open here fails now and can go elsewhere."""
        session, self.session = self.session, self._connect()
        await session.close()

    async def close(self) -> None:
        await self.session.close()

    async def why_not_healthy(self) -> str | None:
        """None when /health answers, the model is (still) the one asked for and, after a stall, a request is answered."""
        try:
            health = await self._get("/health")
            if health[0] >= 500:
                return f"/health: HTTP {health[0]}"
            status, body = await self._get("/v1/models")
            if status == 200 and self.endpoint.model not in (listed := model_cards(body)):
                return f"it has {', '.join(listed) or 'no model'} instead of {self.endpoint.model}"
            return await self._why_no_answer() if self.stalled else None
        except TimeoutError:
            return f"no answer to /health in {HEALTH_TIMEOUT_S:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"/health: {type(error).__name__}: {error}"

    async def _get(self, path: str) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
        status, _, body = await ask(self.session, "GET", self.urls[path], self.mask, MAX_ABOUT, timeout=timeout)
        return status, body

    async def _why_no_answer(self) -> str | None:
        body = orjson.dumps({"model": self.endpoint.model, "prompt": "1", self.endpoint.dialect.max_tokens_key: 1})
        timeout = aiohttp.ClientTimeout(total=TRIAL_TIMEOUT_S)
        url = self.urls["/v1/completions"]
        status, _, _ = await ask(self.session, "POST", url, self.mask, MAX_ABOUT, data=body, timeout=timeout)
        return f"a trial request: HTTP {status}" if status >= 500 else None


def model_cards(body: bytes) -> dict[str, dict[str, Any]]:
    """The models that a /v1/models reply lists, by id.

    Raises:
        ValueError: the body is not a list of models.
    """
    try:
        return {str(card["id"]): card for card in orjson.loads(body)["data"]}
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"/v1/models is not a list of models: {body[:200]!r}") from error
