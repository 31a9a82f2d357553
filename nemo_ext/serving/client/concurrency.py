"""Limit the requests open at one server: as many as it takes without saying that it is too much."""

import time

DECREASE = 0.7


class Concurrency:
    """Additive increase, multiplicative decrease (Chiu and Jain 1989), between 1 and `most`; starts at `most`.

    A server that is full refuses or times out many requests at once: those sent before the last decrease cause no
    other one.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self._decreased = float("-inf")

    def succeeded(self) -> None:
        """One more for every `limit` successes."""
        if self.limit < self.most:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def overloaded(self, sent: float) -> None:
        """`sent`: time.monotonic() when the request that was too much went out."""
        if sent > self._decreased:
            self.limit = max(1.0, self.limit * DECREASE)
            self._decreased = time.monotonic()
