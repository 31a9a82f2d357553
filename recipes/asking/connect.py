"""The servers a stage asks: waited for, found to have its model, and tried for what they honour."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from nemo_ext.serving import server as servers
from recipes.asking.served import ServedStage, address_files

if TYPE_CHECKING:
    from nemo_ext.serving.client.probe import Abilities
    from nemo_ext.serving.client.requests import Request

log = logging.getLogger(__name__)


def takes_any_model(cfg: ServedStage) -> bool:
    """Which one it is, is known once the servers have been asked."""
    return cfg.any_model and bool(cfg.server["kind"] == "external")


def connect(cfg: ServedStage, first: "Request | None" = None, samples_per_request: int = 1) -> "Abilities":
    """Wait for this stage's servers, check that they have its model, and find out what they honour.

    Args:
        first: a request to come: whether it is a chat, and has a seed, decides what is tried.

    Raises:
        TimeoutError, ServersDown: no server.
        WrongModel: another model.
    """
    from nemo_ext.serving.address import wait_for
    from nemo_ext.serving.client.probe import probe

    server = servers.load(cfg.server)
    endpoints = (
        servers.module_of("external").endpoints(server)
        if server.kind == "external"
        else wait_for(address_files(cfg), server.startup_timeout_s)
    )
    endpoints = [replace(endpoint, concurrency=server.concurrency) for endpoint in endpoints]
    rendered = getattr(servers.module_of(server.kind), "RENDERED_TEXT", False)
    expected = [] if takes_any_model(cfg) else servers.accepted_ids(cfg.model)
    endpoints = [replace(each, dialect=replace(each.dialect, rendered_text=rendered)) for each in endpoints]
    seed = first is not None and first.sampling.seed is not None and first.sampling.temperature > 0
    served = probe(endpoints, cfg.client, expected, first, n=samples_per_request > 1, seed=seed)
    for ignored, effect in (("n", "each sample is a request of its own"), ("seed", "a rerun will sample other texts")):
        if getattr(served, f"honours_{ignored}") is False:
            log.warning("%s: the server ignores `%s`: %s", cfg.name, ignored, effect)
    return served
