"""The order in which requests go out, and how many go together."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from nemo_ext.serving.client.requests import Request


def grouped(requests: Iterable[Request], size: int) -> Iterator[Request]:
    """Neighbours that ask for samples of one prompt, up to `size` of them as one request with the first one's seed.

    For servers that honour `n`: the prompt is sent, and where prompts are paid for paid, once.
    """
    if size == 1:
        yield from requests
        return
    group: list[Request] = []
    for request in requests:
        if group and (len(group) == size or not _alike(group[0], request)):
            yield _merged(group)
            group = []
        group.append(request)
    if group:
        yield _merged(group)


def _alike(first: Request, other: Request) -> bool:
    return (
        first.prompt == other.prompt
        and first.rendered == other.rendered
        and first.sampling == replace(other.sampling, seed=first.sampling.seed)
    )


def _merged(group: list[Request]) -> Request:
    return group[0] if len(group) == 1 else replace(group[0], more_keys=tuple(each.key for each in group[1:]))


def longest_last_first(requests: Iterable[Request], window: int) -> Iterator[Request]:
    """The same requests, the last `window` of them longest first: a long one that starts last keeps a server waiting.

    Holds `window` requests; the others keep their order, so that those with a prefix in common stay together.
    """
    ahead: deque[Request] = deque()
    for request in requests:
        ahead.append(request)
        if len(ahead) > window:
            yield ahead.popleft()
    yield from sorted(ahead, key=_length, reverse=True)


def _length(request: Request) -> int:
    if isinstance(request.prompt, str):
        return len(request.prompt)
    return sum(len(message["content"]) for message in request.prompt)
