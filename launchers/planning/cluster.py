"""The settings that every kind of cluster has, about its GPUs; executors' Configs extend them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


@dataclass(kw_only=True)
class Cluster(ABC):
    gpu: str | None = None
    """Kind of the GPUs, a name in nemo_ext/machine/gpus.py, for estimates; null: not known."""
    mfu: float | None = None
    """Share of the GPUs' peak that training is expected to reach; null: what nemo_ext/machine/gpus.py assumes."""
    check_memory: bool = True
    """Refuse training that does not fit the GPUs by the plan's estimate."""

    runs_here: ClassVar[bool] = False
    """Whether the stages run on the launching machine."""

    @property
    @abstractmethod
    def tasks_at_once(self) -> int:
        """Shards or variants of one stage that run at once."""
