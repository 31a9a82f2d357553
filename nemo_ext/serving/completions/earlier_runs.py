"""Completions that were paid for in other folders: of the same stage before it had more samples or other shards."""

import logging
from math import gcd
from pathlib import Path
from typing import IO

from omegaconf import OmegaConf

from nemo_ext.serving.client.requests import Completion, completion_of, stored_row
from nemo_ext.serving.completions.completion_store import packed

log = logging.getLogger(__name__)

OFFSET_BITS = 48


def earlier_files(output_dir: Path, shard: int, shards: int, name: str) -> list[Path]:
    """Files called `name` in what was set aside of this stage, as far as they may hold rows of this shard.

    Rows go to shards by a hash: of N shards, row h is in shard h mod N. So shard i of N and j of M have rows in common
    only if i = j modulo the greatest common divisor of N and M; of 64 shards made 128, each needs one.
    """
    stage = output_dir.parent if shards > 1 else output_dir
    found = []
    for folder in sorted(stage.parent.glob(f"{stage.name}.old*")):
        for path in sorted([*folder.glob(name), *folder.glob(f"*/{name}")]):
            their_shard, their_shards = _place(path.parent / "config.yaml")
            common = gcd(their_shards, shards)
            if their_shard % common == shard % common:
                found.append(path)
    return found


def _place(config: Path) -> tuple[int, int]:
    """(shard, number of shards); without a config it may hold any row."""
    if not config.is_file():
        return 0, 1
    loaded = OmegaConf.to_container(OmegaConf.load(config))
    assert isinstance(loaded, dict), "a stage's config is a mapping"
    return int(loaded.get("shard", 0)), int(loaded.get("shards", 1))


class EarlierCompletions:
    """Read-only, by request key; completions that are errors are not found. Memory: an index as the store's."""

    def __init__(self, files: list[Path]) -> None:
        self._handles: list[IO[bytes]] = [path.open("rb") for path in files]
        self._index: dict[bytes, int] = {}  # the key's bytes -> number of the file and offset in one number
        for number, handle in enumerate(self._handles):
            self._read(number, handle)
        if self._index:
            log.info("%d completions of earlier runs of this stage may be used again", len(self._index))

    def _read(self, number: int, handle: IO[bytes]) -> None:
        offset = 0
        for line in handle:
            try:
                row = stored_row(line)
                if row.get("error") is None:
                    self._index[packed(row["key"])] = number << OFFSET_BITS | offset
            except ValueError:
                log.warning("%s: a line at byte %d is not what was stored; skipped", handle.name, offset)
            offset += len(line)

    def find(self, key: str) -> Completion | None:
        place = self._index.get(packed(key))
        if place is None:
            return None
        handle = self._handles[place >> OFFSET_BITS]
        handle.seek(place & (1 << OFFSET_BITS) - 1)
        return completion_of(handle.readline())

    def close(self) -> None:
        for handle in self._handles:
            handle.close()
