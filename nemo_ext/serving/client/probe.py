"""Probe the servers of a run before anything is paid for: their model, its window, and what they honour.

Servers that ignore `n` or `seed` answer 200 all the same, so only trying tells.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

import aiohttp
import uvloop
from yarl import URL

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client import failures
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.failures import Refused, ServersDown, WrongModel, check_patience
from nemo_ext.serving.client.http import MAX_ABOUT, Mask, ask, headers_for, key_of
from nemo_ext.serving.client.replica import model_cards
from nemo_ext.serving.client.reply import Reply, UnusableReply, read_reply
from nemo_ext.serving.client.requests import Prompt, Request

log = logging.getLogger(__name__)

POLL_S = 0.5
MAX_POLL_S = 5.0
OTHERS_S = 5.0
TIMEOUT_S = 120.0
SEED = 20_240_701
NUM_TOKENS = 12
TEXT = "Count: 7, 3, 9,"
MAX_UNUSABLE = 3  # replies that are not completions, after which the server is taken for one that gives no others


@dataclass(frozen=True)
class Abilities:
    """What all servers together can do: the least that any of them can."""

    endpoints: list[Endpoint]
    """The endpoints, with `model` filled in."""
    max_model_len: int | None = None
    """Tokens of prompt and completion together, where the servers say."""
    honours_n: bool | None = None
    """None: not asked."""
    honours_seed: bool | None = None


def probe(
    endpoints: list[Endpoint],
    config: ClientConfig,
    expected: Collection[str],
    like: Request | None,
    *,
    n: bool,
    seed: bool,
) -> Abilities:
    """Ask every server that answers now; those that do not are left to the client.

    Args:
        expected: model ids that will do where an endpoint names none; empty: whatever it lists.
        like: a request to come; one of its kind is tried, of NUM_TOKENS tokens. None: none is.
        n, seed: whether to try them too.

    Raises:
        WrongModel: a server does not list the model.
        Refused: a server refuses what it is tried with, or its replies cannot be used.
        ServerBusy: one asks to be left alone for longer than patience_s.
        ServersDown: none answered for all_down_s.
    """
    return uvloop.run(_all(endpoints, config, expected, _Trial.of(like, n, seed) if config.probe else None))


def keeps_text(endpoints: list[Endpoint], request: Request, bos: str) -> bool:
    """Whether every server leaves a rendered text as it is: it then counts the tokens that it counts of the text without
    its BOS, where the server puts that itself. False as well where one does not count.

    Raises:
        ServersDown: one did not answer.
        Refused: one refuses the request.
    """
    return uvloop.run(_keeps_text(endpoints, request, bos))


async def _keeps_text(endpoints: list[Endpoint], request: Request, bos: str) -> bool:
    assert isinstance(request.prompt, str), "only a text is rendered"
    sampling = replace(request.sampling, max_tokens=1, seed=None)
    rendered = replace(request, sampling=sampling, rendered=True)
    bare = replace(rendered, prompt=request.prompt.removeprefix(bos), rendered=False)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    for endpoint in endpoints:
        proxied = endpoint.url.startswith("https://")
        async with aiohttp.ClientSession(headers=headers_for(endpoint), timeout=timeout, trust_env=proxied) as session:
            server = _Server(session, endpoint)
            try:
                replies = [await server.reply(each) for each in (rendered, bare)]
            except (aiohttp.ClientError, OSError) as error:
                raise ServersDown(_described(endpoint, error)) from error
        counts = {reply.num_prompt_tokens if reply else None for reply in replies}
        if len(counts) > 1 or None in counts:
            return False
    return True


async def _all(
    endpoints: list[Endpoint], config: ClientConfig, expected: Collection[str], trial: "_Trial | None"
) -> Abilities:
    tasks = [asyncio.ensure_future(_one(each, config, expected, trial)) for each in endpoints]
    try:
        waiting = set(tasks)
        while waiting and not any(task.done() and not task.exception() for task in tasks):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting:
            await asyncio.wait(waiting, timeout=OTHERS_S)
        ended = [task for task in tasks if task.done()]
        wrong = [task.exception() for task in ended if not isinstance(task.exception(), ServersDown)]
        for error in filter(None, wrong):
            raise error
        found = [task.result() for task in ended if task.exception() is None]
        if not found:
            raise ServersDown("\n  ".join(str(task.exception()) for task in ended))
        return _least(endpoints, found)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _least(endpoints: list[Endpoint], found: list[Abilities]) -> Abilities:
    named = {each.endpoints[0].url: each.endpoints[0] for each in found}
    model = found[0].endpoints[0].model
    windows = [each.max_model_len for each in found if each.max_model_len is not None]
    return Abilities(
        [named.get(each.url, replace(each, model=each.model or model)) for each in endpoints],
        min(windows, default=None),
        None if found[0].honours_n is None else all(each.honours_n for each in found),
        None if found[0].honours_seed is None else all(each.honours_seed for each in found),
    )


@dataclass(frozen=True)
class _Trial:
    """A short request like those to come; which of `n` and `seed` are tried besides."""

    request: Request
    n: bool
    seed: bool

    @classmethod
    def of(cls, like: Request | None, n: bool, seed: bool) -> "_Trial | None":
        if like is None or like.returns != "text":
            return None
        sampling = replace(
            like.sampling,
            temperature=1.0 if like.sampling.temperature > 0 else 0.0,
            max_tokens=NUM_TOKENS,
            seed=None if like.sampling.seed is None else SEED,
        )
        prompt: Prompt = TEXT
        if not isinstance(like.prompt, str):  # reward models want an answer too
            prompt = [{"role": message["role"], "content": TEXT} for message in like.prompt]
        return cls(Request("", prompt, sampling), n, seed)


class _Again(OSError):
    """It may answer later; `wait_s`: what it asks for, or 0."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _Server:
    """One server that is asked what it is."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint) -> None:
        self.session = session
        self.endpoint = endpoint
        self.mask = Mask(key_of(endpoint))
        self.num_unusable = 0

    async def abilities(self, expected: Collection[str], trial: _Trial | None) -> Abilities:
        status, body = await self._ask("GET", "/v1/models")
        cards = model_cards(body) if status == 200 else {}
        if not cards:
            log.warning(
                "%s lists no models (HTTP %d: %s); its model cannot be checked",
                self.endpoint.url, status, self.mask.text(failures.server_message(body)),
            )  # fmt: skip
        model = _choose(self.endpoint, list(cards), expected)
        log.info("%s serves %s", self.endpoint.url, model)
        window = cards.get(model, {}).get("max_model_len")
        self.endpoint = replace(self.endpoint, model=model)
        honours_n, honours_seed = (None, None) if trial is None else await self._try(trial)
        return Abilities([self.endpoint], window if isinstance(window, int) else None, honours_n, honours_seed)

    async def _try(self, trial: _Trial) -> tuple[bool | None, bool | None]:
        first = await self.reply(trial.request)
        assert first is not None, "a refusal of a plain request is raised"
        if first.num_generated_tokens is None:
            log.warning("%s does not count the tokens of its completions (`usage`)", self.endpoint.url)
        honours_n = honours_seed = None
        if trial.n:
            honours_n = await self._honours_n(trial.request)
        if trial.seed:
            second = await self.reply(trial.request)
            honours_seed = second is not None and self.endpoint.dialect.seed and first.choices == second.choices
        return honours_n, honours_seed

    async def _honours_n(self, request: Request) -> bool:
        """Not if it answers with one sample, or counts the tokens of one alone, as llama.cpp."""
        both = await self.reply(replace(request, more_keys=("1",)))
        return both is not None and (both.num_generated_tokens is not None or not both.counts)

    async def reply(self, request: Request) -> Reply | None:
        """None: it refuses, or ignores, the request for several samples.

        Raises:
            _Again: it may answer later.
            WrongModel, Refused: it will not.
        """
        body = request.body(self.endpoint.model, self.endpoint.dialect)
        status, content = await self._ask("POST", request.path, body)
        if status == 200:
            try:
                return read_reply(request, content)
            except UnusableReply as error:
                self._unusable(request, content, error)
                return None
        said = self.mask.text(failures.server_message(content))
        if status == 404:
            raise WrongModel(
                f"{self.endpoint.url} has no {request.path} for model {self.endpoint.model!r}: HTTP 404: {said[:300]}. "
                f"Prompts with template: {'base' if isinstance(request.prompt, str) else 'chat'} go there"
            )
        if request.more_keys:
            return None
        raise Refused(
            f"{self.endpoint.url} refuses a short request like those to come: HTTP {status}: {said}. Of an external server, "
            "server.seed=false leaves the seed out and server.max_tokens_key=max_completion_tokens renames max_tokens",
            str(status),
        )

    def _unusable(self, request: Request, content: bytes, error: UnusableReply) -> None:
        if request.more_keys:
            return
        self.num_unusable += 1
        why = failures.bad_reply(content, str(error)).message
        if self.num_unusable == MAX_UNUSABLE or error.final:
            raise Refused(f"{self.endpoint.url}: {why}. Nothing more was asked", error.kind)
        raise _Again(why)

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        url = URL(self.endpoint.url + path)
        status, headers, content = await ask(self.session, method, url, self.mask, MAX_ABOUT, data=body)
        if status == 200:
            return status, content
        failure = failures.from_status(status, content, headers)
        message = f"{path}: {self.mask.text(failure.message)}"
        if failure.retry:
            raise _Again(message, failure.retry_after_s)
        if failure.fatal and (300 <= status < 400 or method == "POST") and status != 404:
            raise Refused(f"{self.endpoint.url}{message}", failure.kind)
        return status, content


async def _one(endpoint: Endpoint, config: ClientConfig, expected: Collection[str], trial: _Trial | None) -> Abilities:
    """Raises ServersDown when it cannot be reached for all_down_s, waits that it asked for not counted."""
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    proxied = endpoint.url.startswith("https://")
    reported, waited_s, pause_s = "", 0.0, POLL_S
    async with aiohttp.ClientSession(headers=headers_for(endpoint), timeout=timeout, trust_env=proxied) as session:
        server = _Server(session, endpoint)
        while True:
            try:
                return await server.abilities(expected, trial)
            except WrongModel:
                raise
            except (aiohttp.ClientError, OSError, ValueError) as error:
                wait_s = error.wait_s if isinstance(error, _Again) else 0.0
                why = f"{endpoint.url}: {error}" if isinstance(error, _Again) else _described(endpoint, error)
                if why != reported:
                    log.warning("%s; asking again for up to %g s", why, max(config.all_down_s, wait_s))
                    reported = why
                if wait_s == 0 and time.monotonic() - waited_s - began > config.all_down_s:
                    raise ServersDown(f"no server has answered for {config.all_down_s:g} s; {why}") from error
                waited_s += wait_s
                check_patience(endpoint.url, why, wait_s, waited_s, config.patience_s)
            await asyncio.sleep(max(wait_s, min(pause_s, config.all_down_s / 4)))
            pause_s = min(2 * pause_s, MAX_POLL_S)


def _described(endpoint: Endpoint, error: Exception) -> str:
    return f"{endpoint.url}: {type(error).__name__}: {error}"


def _choose(endpoint: Endpoint, listed: list[str], expected: Collection[str]) -> str:
    wanted = {endpoint.model} if endpoint.model else set(expected)
    if not listed:
        if not wanted:
            raise WrongModel(f"{endpoint.url} does not say which model it has. Give it: server.model=<id>")
        return endpoint.model or sorted(wanted)[0]
    fitting = [model for model in listed if model in wanted] if wanted else listed
    if not fitting:
        raise WrongModel(
            f"{endpoint.url} has {', '.join(listed)} and not {' or '.join(sorted(wanted))}: the wrong model. Start "
            f"the right one, or accept this one with server.model={listed[0]}"
        )
    if len(fitting) > 1 and not wanted:
        raise WrongModel(f"{endpoint.url} has several models: {', '.join(listed)}. Choose: server.model=<id>")
    return fitting[0]
