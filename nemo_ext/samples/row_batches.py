"""The rows of files in batches, and the processes that make samples of them."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from nemo_ext.rows.engines.processes import available_cores, ordered_map
from nemo_ext.rows.outside.read import read_any
from nemo_ext.samples.sft_samples import RowBatch

BATCH = 250
MAX_WORKERS = 8  # more than one process that reads and writes can feed
SMALL_BYTES = 32 << 20  # less is done before a worker has imported what it needs
T = TypeVar("T")


def made_samples(
    files: list[Path],
    load: Callable[[], Callable[[RowBatch], list[T]]],
    here: Callable[[RowBatch], list[T]],
    workers: int | None = None,
) -> Iterator[tuple[RowBatch, list[T]]]:
    """Each batch of the files' rows with what was made of it, in order, whatever the number of processes.

    Args:
        load: makes the maker in a process of its own.
        here: the maker that is taken where one process is enough.
        workers: processes. None: one per core up to MAX_WORKERS, and this one alone for little.
    """
    count = workers or _workers(files)
    if count > 1:
        yield from ordered_map(load, _batches(files), count)
        return
    for batch in _batches(files):
        yield batch, here(batch)


def _workers(files: list[Path]) -> int:
    small = sum(file.stat().st_size for file in files) < SMALL_BYTES
    return 1 if small else min(MAX_WORKERS, available_cores())


def _batches(files: list[Path]) -> Iterator[RowBatch]:
    for file in files:
        rows, first = read_any(file), 1
        while batch := list(islice(rows, BATCH)):
            yield RowBatch(str(file), first, batch)
            first += len(batch)
