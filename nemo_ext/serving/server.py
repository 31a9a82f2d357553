"""Settings and functions that all inference servers share; a `server:` mapping becomes a typed one.

A kind is a file: `kind: trtllm` is nemo_ext/serving/servers/trtllm.py. Such a file has
    Config(Server)                      its fields, documented; Config(GpuServer) where it needs GPUs
and, of a server that is a program of its own,
    command(cfg, model, place)          the argv that starts it
    options(cfg, model)                 what the YAML file at place.options_path holds; {}: no file
    environment(cfg, environ)           what that program gets of our environment
    READY                               the path that answers 200 once it serves
    VERSION                             paths that may tell its version, as JSON with `version`
    METRICS, read_metrics(body, before) the path of its metrics, and what they say (server_metrics.py); METRICS = "" and no
                                        reader where it has none that can be asked while it is busy
What a kind takes of a request: RENDERED_TEXT = True where it adds no special tokens to a text sent with
add_special_tokens=false, STOP_TOKEN_IDS = True where it takes stop_token_ids; left out, it does not.
`embedded` runs in our own process, `external` runs elsewhere: those files say how.
Light imports only: the login node reads this.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import MISSING

from nemo_ext import plug_ins
from nemo_ext.models.model import Model
from nemo_ext.serving.address import CONCURRENCY

KV_CACHE_DTYPES = ("auto", "fp8")


@dataclass(kw_only=True)
class Server:
    kind: str = MISSING
    """A file name in nemo_ext/serving/servers."""
    replicas: int = field(default=1, metadata={"decides": False})
    """How many of it a stage starts; the client spreads requests over them."""
    concurrency: int = field(default=CONCURRENCY, metadata={"decides": False})
    """Requests open at once per replica, at most; keep it at or above the server's batch size."""
    startup_timeout_s: float = field(default=600.0, metadata={"decides": False})
    """Give up when it is not ready by then: loading 405B from a busy file system takes 10 to 30 minutes."""
    metrics_interval_s: float = field(default=30.0, metadata={"decides": False})
    """Between lines about its load in the server's log; 0: none."""

    def __post_init__(self) -> None:
        for name in ("replicas", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"server.{name}={getattr(self, name)}; it must be at least 1")


@dataclass(kw_only=True)
class GpuServer(Server, ABC):
    """One replica uses tp_size * pp_size GPUs, on `nodes` nodes."""

    tp_size: int = 1
    """GPUs each layer is split over."""
    pp_size: int = 1
    """Groups of layers, one after another."""
    nodes: int = 1
    """Nodes of one replica."""
    max_batch_size: int = 256
    """Sequences decoded together."""
    max_num_tokens: int = 8192
    """Tokens of one step, prompts and decodes together."""
    max_seq_len: int | None = None
    """Tokens of prompt and completion; None: the model's context length."""
    kv_cache_dtype: str = "auto"
    """auto (the weights' 16 bit, or what the checkpoint says) or fp8."""
    startup_timeout_s: float = field(default=1800.0, metadata={"decides": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tp_size", "pp_size", "nodes", "max_batch_size", "max_num_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"server.{name}={getattr(self, name)}; it must be at least 1")
        if self.gpus % self.nodes:
            raise ValueError(f"server.nodes={self.nodes}; it must divide tp_size * pp_size = {self.gpus}")
        if self.kv_cache_dtype not in KV_CACHE_DTYPES:
            raise ValueError(f"server.kv_cache_dtype={self.kv_cache_dtype!r}; it may be one of {KV_CACHE_DTYPES}")

    @property
    def gpus(self) -> int:
        return self.tp_size * self.pp_size

    @property
    def gpus_per_node(self) -> int:
        return self.gpus // self.nodes

    @property
    def tasks(self) -> int:
        """Processes that start one replica, spread evenly over its nodes; all run the same command."""
        return self.nodes

    @property
    def launch_mpi(self) -> str | None:
        """The kind of MPI that starts those processes; None: none does."""
        return None

    @abstractmethod
    def kv_gib(self, total: float, weights: float, buffers: float) -> float:
        """What this server gives to the KV cache on each GPU. All in GiB."""

    def sequence_length(self, model: Model) -> int:
        """Tokens of prompt and completion that one sequence may have.

        Raises:
            ValueError: more than the model can take.
        """
        if self.max_seq_len is None:
            return model.context_length
        if not 0 < self.max_seq_len <= model.context_length:
            raise ValueError(
                f"server.max_seq_len={self.max_seq_len}; {model.name} takes up to "
                f"model.context_length={model.context_length}"
            )
        return self.max_seq_len


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one process of a replica finds itself."""

    host: str
    """The address to listen on."""
    port: int
    options_path: Path | None = None
    task: int = 0
    """The number of this one among the replica's `tasks`; 0 listens."""
    rendezvous: str = ""
    """host:port of task 0, where the tasks meet; empty when there is one."""


def type_of(server: Mapping[str, Any]) -> type[Server] | None:
    """The Config of a `server:` mapping's kind; None where there is no such kind."""
    try:
        return _config_of(str(server.get("kind")))
    except ValueError:
        return None


@cache
def _config_of(kind: str) -> type[Server]:
    config: type[Server] = module_of(kind).Config
    return config


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
    server = plug_ins.typed("server", mapping, module_of(str(mapping.get("kind"))).Config)
    assert isinstance(server, Server), "a plug-in's Config extends Server"
    return server


DECIDE_TEXTS = ("kind", "model", "kv_cache_dtype", "compute_dtype")


def decides_texts(server: Server) -> dict[str, Any]:
    """The settings by which the same model answers otherwise, as far as a server has them; the others decide how fast."""
    return {name: getattr(server, name) for name in DECIDE_TEXTS if hasattr(server, name)}


def accepted_ids(model: Model) -> list[str]:
    """The ids under which a server may list this model: its name, or where it was loaded from."""
    path = model.hf_path.rstrip("/")
    return list(dict.fromkeys([model.name, Path(path).name, path]))
