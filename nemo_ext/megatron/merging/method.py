"""The base of every way of merging, and how a `method:` mapping becomes one.

A kind is a file: `method: {kind: ties, density: 0.2}` is nemo_ext/megatron/merging/methods/ties.py. Such a file has
    Config(Method)     a dataclass: its fields are the mapping's, documented
with `combine` and, where it needs more of a tensor than the rows at hand, `measure`. The models' tensors come as differences
from the base's where `of_differences` says so, and what is returned is then added to the base. Light imports only.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from nemo_ext import plug_ins
from nemo_ext.megatron.merging import methods

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Place:
    """Where rows stand in the model."""

    tensor: str
    """Its Hugging Face name."""
    first_row: int


Passes = Callable[[], "Iterator[list[torch.Tensor]]"]
"""Goes through a tensor once: each time some rows of every model, fp32 [rows, ...]."""


@dataclass(kw_only=True)
class Method(ABC):
    kind: str = MISSING
    """A file name in nemo_ext/megatron/merging/methods."""

    of_differences: ClassVar[bool] = False
    """Whether it merges what the models differ in from a base."""
    num_models: ClassVar[int | None] = None
    """How many models it takes, besides the base; None: any number."""
    takes_weights: ClassVar[bool] = True
    """Whether each model may have a weight."""

    def measure(self, passes: Passes, weights: Sequence[float]) -> Any:
        """What `combine` needs of a whole tensor, found by going through it as often as it takes."""
        return None

    @abstractmethod
    def combine(
        self, models: "list[torch.Tensor]", weights: Sequence[float], measured: Any, place: Place
    ) -> "torch.Tensor":
        """Rows of the merged tensor, fp32, of those of every model; they may be changed."""


def weighted_sum(tensors: "list[torch.Tensor]", weights: Sequence[float]) -> "torch.Tensor":
    """Made in the first tensor."""
    total = tensors[0].mul_(weights[0])
    for each, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(each, alpha=weight)
    return total


def load(mapping: Mapping[str, Any]) -> Method:
    """The method of a mapping.

    Raises:
        ValueError: an unknown kind or key, a value of the wrong type, or one out of its range.
    """
    kind, kinds = mapping.get("kind"), plug_ins.names(methods)
    if kind not in kinds:
        raise ValueError(f"method.kind={kind!r}: unknown; it may be one of {kinds}")
    method = plug_ins.typed("method", mapping, importlib.import_module(f"{methods.__name__}.{kind}").Config)
    assert isinstance(method, Method), "a plug-in's Config extends Method"
    return method


def check_models(method: Method, weights: Sequence[float | None]) -> list[float]:
    """The models' weights, 1 where none is given. Raises ValueError for a number of models, or a weight, that the method
    cannot take."""
    if not weights:
        raise ValueError("models is empty: name at least one")
    if method.num_models is not None and len(weights) != method.num_models:
        raise ValueError(f"method.kind={method.kind} takes {method.num_models} models, and models has {len(weights)}")
    if not method.takes_weights and any(weight is not None for weight in weights):
        raise ValueError(f"method.kind={method.kind} gives the models no weights: leave `weight` out")
    return [1.0 if weight is None else float(weight) for weight in weights]
