"""Requests to servers that nobody here runs: their key stays out of what they say, and what they say has an end.

Redirects are not followed: rows would go to an address that nobody named.
"""

import os
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from nemo_ext.serving.address import Endpoint

MASK = "***"
MIN_SECRET = 8  # characters; a shorter key would be found in any text
MAX_ABOUT = 8 << 20  # bytes of what a server says of itself


class TooBig(aiohttp.ClientPayloadError):
    """A reply is longer than what was asked for can be."""


class Mask:
    """Takes a server's key out of what it says.

    >>> Mask("sk-SECRETSECRET")(b"wrong key: sk-SECRETSECRET")
    b'wrong key: ***'
    """

    def __init__(self, key: str | None) -> None:
        self._key = key if key is not None and len(key) >= MIN_SECRET else ""
        escaped = self._key.replace("/", "\\/")  # as some write it in JSON
        self._bytes = [each.encode() for each in dict.fromkeys((self._key, escaped)) if each]

    def __call__(self, said: bytes) -> bytes:
        for key in self._bytes:
            said = said.replace(key, MASK.encode())
        return said

    def text(self, said: str) -> str:
        return said.replace(self._key, MASK) if self._key else said


def key_of(endpoint: Endpoint) -> str | None:
    """Raises ValueError when the variable named by api_key_env is not set."""
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env)
    if not key:
        raise ValueError(f"the environment variable {endpoint.api_key_env} is not set; it holds {endpoint.url}'s key")
    return key


def headers_for(endpoint: Endpoint) -> dict[str, str]:
    """`identity`: a compressed reply's size says nothing about what it becomes. Raises ValueError as key_of."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    key = key_of(endpoint)
    return headers if key is None else headers | {"Authorization": f"Bearer {key}"}


async def ask(
    session: aiohttp.ClientSession, method: str, url: URL, mask: Mask, limit: int, **options: Any
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body, with the key masked.

    Raises:
        TooBig: it is longer than `limit` bytes.
        aiohttp.ClientError, OSError: no whole reply came.
    """
    async with session.request(method, url, allow_redirects=False, **options) as reply:
        length = reply.content_length
        if length is not None and length <= limit and "Content-Encoding" not in reply.headers:
            content = await reply.read()
        else:
            content = await _bounded(reply, limit)
        return reply.status, reply.headers, mask(content)


async def _bounded(reply: aiohttp.ClientResponse, limit: int) -> bytes:
    pieces, total = [], 0
    if (reply.content_length or 0) <= limit:
        async for piece in reply.content.iter_any():
            pieces.append(piece)
            total += len(piece)
            if total > limit:
                break
        else:
            return b"".join(pieces)
    raise TooBig(f"a reply of more than {limit:,} bytes, which what was asked for cannot have")
