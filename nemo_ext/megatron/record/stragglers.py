"""Find slow ranks: how long each needed until its gradients were ready, before it waited for the others."""

import socket
import statistics
from typing import Any

import torch
import torch.distributed as dist

SLOW = 1.2
"""A rank is named when it took this many times the median of all ranks."""


class Stragglers:
    """Sums each rank's seconds between two reports. Every rank makes one."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self.device = device
        hosts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(hosts, socket.gethostname())
        self.hosts: list[str] = hosts

    def add(self, seconds: float) -> None:
        self.seconds += seconds

    def report(self) -> dict[str, Any]:
        """Called by all ranks together; starts the next interval.

        slowest_rank, slowest_host, and slowest_ratio: its seconds over the median rank's.
        """
        mine = torch.tensor([self.seconds], dtype=torch.float64, device=self.device)
        everyone = [torch.empty_like(mine) for _ in self.hosts]
        dist.all_gather(everyone, mine)
        self.seconds = 0.0
        return slowest([float(one) for one in everyone], self.hosts)


def slowest(seconds: list[float], hosts: list[str]) -> dict[str, Any]:
    """The slowest rank against the median; the median is the lower of the middle two, so that one slow rank of two
    shows."""
    rank = max(range(len(seconds)), key=seconds.__getitem__)
    median = statistics.median_low(seconds)
    ratio = seconds[rank] / median if median > 0 else 1.0
    return {"slowest_rank": rank, "slowest_host": hosts[rank], "slowest_ratio": round(ratio, 3)}
