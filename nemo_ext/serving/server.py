"""What every inference server has in common, and how a `server:` mapping becomes a typed one.

A kind is a file: `kind: trtllm` is nemo_ext/serving/servers/trtllm.py. Such a file has
    Config(Server)                                          its fields, documented
    command(cfg, model, host, port, options_path)           the argv that starts it (not for external)
    options(cfg, model)                                     what the YAML file at options_path holds; {}: no file
Light imports only: the login node reads this.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_ext.serving.address import CONCURRENCY


@dataclass(kw_only=True)
class Server:
    kind: str = MISSING
    """A file name in nemo_ext/serving/servers."""
    replicas: int = 1
    """How many of it a stage starts; the client spreads requests over them."""
    concurrency: int = CONCURRENCY
    """Requests open at once per replica, at most; keep it at or above the server's batch size."""
    startup_timeout_s: float = 600.0
    """Give up when /health has not answered by then."""


def kinds() -> list[str]:
    folder = Path(__file__).parent / "servers"
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def module_of(kind: str) -> ModuleType:
    """The plug-in file of a kind.

    Raises:
        ValueError: no such file, with the kinds there are.
    """
    if kind not in kinds():
        raise ValueError(f"server.kind={kind!r}: unknown; it may be one of {kinds()}")
    return importlib.import_module(f"nemo_ext.serving.servers.{kind}")


def load(mapping: Mapping[str, Any]) -> Server:
    """The typed configuration of one server, from the mapping in a stage's YAML.

    Raises:
        ValueError: an unknown kind or key, a value of the wrong type, or a required one left out.
    """
    config = module_of(str(mapping.get("kind"))).Config
    known = sorted(field.name for field in fields(config))
    for key in mapping:
        if key not in known:
            raise ValueError(f"server.{key}: unknown for kind={mapping['kind']!r}; it may be one of {known}")
    try:
        server = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config), dict(mapping)))
    except OmegaConfBaseException as error:
        raise ValueError(f"server.{error.key}: {str(error).splitlines()[0]}") from error
    assert isinstance(server, Server), "a plug-in's Config extends Server"
    return server
