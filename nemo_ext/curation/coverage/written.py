"""The rows that finished stages left, and proof that each stage read what the one before it wrote."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from nemo_ext.records import manifest
from nemo_ext.rows.row import input_files, input_patterns


@dataclass(frozen=True)
class Written:
    """The rows of a stage, of all its tasks together."""

    folder: str
    name: str
    outputs: tuple[Path, ...]
    dropped: tuple[Path, ...]
    manifests: tuple[Path, ...]
    reads: tuple[Counter[str], ...]
    """Of each task, the hashes of its inputs."""
    writes: Counter[str]
    """The hashes of the outputs."""

    @property
    def files(self) -> list[Path]:
        return [*self.outputs, *self.dropped, *self.manifests]

    @property
    def patterns(self) -> list[str]:
        """Patterns of the files that would be among its rows."""
        kept = input_patterns(self.folder)
        folders = [each.removesuffix(manifest.OUTPUT_FILES) for each in kept if each.endswith(manifest.OUTPUT_FILES)]
        return [*kept, *(f"{each}{manifest.DROPPED_FILES}" for each in folders)]


def written(folder: str) -> Written:
    """What a stage's folder holds.

    Raises:
        ValueError: the stage has not finished, or its files are no longer what it wrote.
    """
    outputs = input_files(folder)
    tasks = list(dict.fromkeys(path.parent for path in outputs))
    records = [manifest.read(task) for task in tasks]
    for task in tasks:
        if reason := manifest.outputs_changed(task):
            raise ValueError(f"{task} is no longer what its stage wrote: {reason}. Run that stage again")
    of_rows = [
        each for record in records for each in record["outputs"] if Path(each["path"]).match(manifest.OUTPUT_FILES)
    ]
    return Written(
        folder,
        str(records[0]["stage"]),
        tuple(outputs),
        tuple(path for task in tasks for path in sorted(task.glob(manifest.DROPPED_FILES))),
        tuple(task / manifest.MANIFEST for task in tasks),
        tuple(Counter(each["sha256"] for each in record["inputs"]) for record in records),
        Counter(each["sha256"] for each in of_rows),
    )


def require_chain(stages: Sequence[Written]) -> None:
    """Raises ValueError unless each stage read all files that the one before it wrote; it may have read others, too."""
    for before, after in pairwise(stages):
        if any(before.writes - read for read in after.reads):
            raise ValueError(
                f"{after.folder} was not made of the rows in {before.folder}: its manifest has other inputs. Name the "
                "stages in the order in which rows went through them, all of one run, and run what is out of date again"
            )
