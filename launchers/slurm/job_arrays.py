"""The tasks of a stage as Slurm job arrays, whose elements Slurm numbers from 0 up to its MaxArraySize."""

from dataclasses import dataclass


@dataclass(frozen=True)
class JobArray:
    """Element `i` works in task `offset + i`."""

    offset: int
    elements: str
    """The value of sbatch --array: `0-2,5`."""


def ranges(indices: list[int]) -> str:
    """`0-2,5` for [0, 1, 2, 5]."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def split(tasks: list[int], max_array_size: int | None) -> list[JobArray]:
    """One array, or, of tasks beyond `max_array_size` (None: no limit), one for each so many."""
    blocks: dict[int, list[int]] = {}
    for task in tasks:
        offset = 0 if max_array_size is None else task // max_array_size * max_array_size
        blocks.setdefault(offset, []).append(task - offset)
    return [JobArray(offset, ranges(elements)) for offset, elements in blocks.items()]
