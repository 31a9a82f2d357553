"""What the servers of a run are, asked before anything is paid for: their model, its window, and what they honour.

Servers that ignore `n` or `seed` answer 200 all the same, so only trying tells.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import orjson
import uvloop

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client_config import ClientConfig
from nemo_ext.serving.failures import ServersDown, WrongModel
from nemo_ext.serving.replica import headers_for, model_cards

log = logging.getLogger(__name__)

POLL_S = 0.5
OTHERS_S = 5.0
TIMEOUT_S = 120.0
SEED = 20_240_701
NUM_TOKENS = 12


@dataclass(frozen=True)
class Abilities:
    """Of all servers together: the least any of them has."""

    endpoints: list[Endpoint]
    """With `model` filled in."""
    max_model_len: int | None = None
    """Tokens of prompt and completion together, where the servers say."""
    honours_n: bool | None = None
    """None: not asked."""
    honours_seed: bool | None = None


def probe(
    endpoints: list[Endpoint], config: ClientConfig, expected: Collection[str], *, chat: bool, n: bool, seed: bool
) -> Abilities:
    """Ask every server that answers now; those that do not are left to the client.

    Args:
        expected: model ids that will do where an endpoint names none; empty: whatever it lists.
        chat: try /v1/chat/completions and not /v1/completions.
        n, seed: whether to try them, at NUM_TOKENS tokens a sample.

    Raises:
        WrongModel: a server does not list the model.
        ServersDown: none answered for all_down_s.
    """
    return uvloop.run(_all(endpoints, config, expected, chat, n, seed))


async def _all(
    endpoints: list[Endpoint], config: ClientConfig, expected: Collection[str], chat: bool, n: bool, seed: bool
) -> Abilities:
    tasks = [asyncio.ensure_future(_one(each, config, expected, chat, n, seed)) for each in endpoints]
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


async def _one(
    endpoint: Endpoint, config: ClientConfig, expected: Collection[str], chat: bool, n: bool, seed: bool
) -> Abilities:
    """Raises ServersDown when it cannot be reached for all_down_s."""
    deadline = time.monotonic() + config.all_down_s
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    proxied = endpoint.url.startswith("https://")
    told = ""
    async with aiohttp.ClientSession(headers=headers_for(endpoint), timeout=timeout, trust_env=proxied) as session:
        while True:
            try:
                return await _ask(session, endpoint, expected, chat, n and config.probe, seed and config.probe)
            except WrongModel:
                raise
            except (aiohttp.ClientError, OSError, ValueError) as error:
                why = f"{endpoint.url}: {type(error).__name__}: {error}"
                if why != told:
                    log.warning("%s; asking again for up to %g s", why, config.all_down_s)
                    told = why
                if time.monotonic() > deadline:
                    raise ServersDown(f"no server has answered for {config.all_down_s:g} s; {why}") from error
                await asyncio.sleep(min(POLL_S, config.all_down_s / 4))


async def _ask(
    session: aiohttp.ClientSession, endpoint: Endpoint, expected: Collection[str], chat: bool, n: bool, seed: bool
) -> Abilities:
    async with session.get(f"{endpoint.url}/v1/models") as reply:
        body = await reply.read()
        if reply.status >= 500 or reply.status in (408, 429):
            raise OSError(f"/v1/models: HTTP {reply.status}")
    cards = model_cards(body) if reply.status == 200 else {}
    if not cards:
        log.warning("%s lists no models (HTTP %d); its model cannot be checked", endpoint.url, reply.status)
    model = _choose(endpoint, list(cards), expected)
    log.info("%s serves %s", endpoint.url, model)
    window = cards.get(model, {}).get("max_model_len")
    named = replace(endpoint, model=model)
    honours_n = len(await _sample(session, named, chat, 2)) == 2 if n else None
    honours_seed = None
    if seed:
        first, second = await _sample(session, named, chat, 1), await _sample(session, named, chat, 1)
        honours_seed = first == second != []
    return Abilities([named], window if isinstance(window, int) else None, honours_n, honours_seed)


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


async def _sample(session: aiohttp.ClientSession, endpoint: Endpoint, chat: bool, count: int) -> list[str]:
    """Texts of a short sampled completion with a fixed seed; fewer than `count` when the server ignores or refuses `n`."""
    text = "Count: 7, 3, 9,"
    body: dict[str, Any] = {"model": endpoint.model, "temperature": 1.0, "seed": SEED, "max_tokens": NUM_TOKENS}
    body |= {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
    if count > 1:
        body["n"] = count
    path = "/v1/chat/completions" if chat else "/v1/completions"
    async with session.post(f"{endpoint.url}{path}", data=orjson.dumps(body)) as reply:
        content = await reply.read()
        if reply.status >= 500 or reply.status in (408, 429):
            raise OSError(f"{path}: HTTP {reply.status}")
    if reply.status == 404:
        raise WrongModel(
            f"{endpoint.url} has no {path} for model {endpoint.model!r}: HTTP 404: "
            f"{content[:300].decode(errors='replace')}. Prompts with template: {'chat' if chat else 'base'} go there"
        )
    if reply.status != 200:
        return []
    try:
        choices = orjson.loads(content)["choices"]
        return [str(choice["message"]["content"] if chat else choice["text"]) for choice in choices]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: the reply is not a completion: {content[:200]!r}") from error
