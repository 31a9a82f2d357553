"""A seeded sample of a stage's rows, a reservoir for those kept and one for every drop reason, in one pass."""

import random
from collections.abc import Iterable
from pathlib import Path

from nemo_ext.explorer.parts import cut
from nemo_ext.rows.row import dumps, parse_line

KEPT = ""
"""The reason of rows that were not dropped."""
NO_REASON = "no_reason"
HELD_BYTES = 200_000
"""A longer line is not held in memory as it is."""


class Reservoir:
    """`size` of the lines offered, each with the same chance."""

    def __init__(self, size: int, seed: str) -> None:
        self.size, self.seen = size, 0
        self._random = random.Random(seed).random
        self._lines: list[tuple[int, bytes]] = []

    def offer(self, line: bytes) -> None:
        if len(self._lines) < self.size:
            self._lines.append((self.seen, line))
        else:
            place = int(self._random() * (self.seen + 1))
            if place < self.size:
                self._lines[place] = (self.seen, line)
        self.seen += 1

    @property
    def lines(self) -> list[bytes]:
        """The sampled lines, in the order of the files."""
        return [line for _, line in sorted(self._lines)]


def sample_rows(
    files: Iterable[Path], dropped_files: Iterable[Path], kept: int, dropped: int, seed: str
) -> dict[str, Reservoir]:
    """Reason -> its reservoir; KEPT first, then the reasons with most rows.

    A line that is no JSON object is left out of the sample and counted: this is a page to look at what went wrong.
    """
    found = {KEPT: Reservoir(kept, f"{seed}/")}
    for file in files:
        with file.open("rb") as handle:
            for line in handle:
                found[KEPT].offer(line if len(line) <= HELD_BYTES else _shorter(line))
    reasons: dict[str, Reservoir] = {}
    for file in dropped_files:
        with file.open("rb") as handle:
            for line in handle:
                reason = str((parse_line(line) or {}).get("reason", NO_REASON))
                if reason not in reasons:
                    reasons[reason] = Reservoir(dropped, f"{seed}/{reason}")
                reasons[reason].offer(line if len(line) <= HELD_BYTES else _shorter(line))
    return found | dict(sorted(reasons.items(), key=lambda each: (-each[1].seen, each[0])))


def _shorter(line: bytes) -> bytes:
    row = parse_line(line)
    return line[:HELD_BYTES] if row is None else dumps(cut(row, HELD_BYTES // 20))
