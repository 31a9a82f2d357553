"""Write a finished data set as it is released: parquet and JSONL with zstd per split, and a card that says how it was made.

In:  rows with problem and generated_solution (or generation)
Out: dataset/data/train-00000-of-00027.parquet, ..., dataset/jsonl/train-00000-of-00027.jsonl.zst, ..., dataset/README.md
     {"problem": "Ava has 7 ...", "generated_solution": "3 * 4 = ...", "expected_answer": "19", "problem_source": "gsm8k"}
`datasets.load_dataset("<run>/publish/dataset")` opens it. Nothing is dropped but rows without a solution, which are counted.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.publish import COLUMNS
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import require_rows
from recipes.stage import ReadsRows, row_files

if TYPE_CHECKING:
    from nemo_ext.curation.choosing.row_keys import RowKeys
    from nemo_ext.publish.card import Card
    from nemo_ext.publish.splits import Task, Written
    from nemo_ext.rows.batches import Part
    from nemo_ext.rows.row_input import RowFiles

DATASET, ALL = "dataset", "all"


@dataclass(kw_only=True)
class Config(ReadsRows):
    input: str = field(default=MISSING, metadata={"path": True})
    splits: dict[str, int | None] = field(default_factory=lambda: {"train": None})
    """Split -> rows, chosen fairly over the problems; null: all of them. One that is larger than the data is left out."""
    more_columns: list[str] = field(default_factory=list)
    """Columns besides the released ones, such as majority_votes."""
    title: str = "Solved mathematics problems"
    description: str = "Problems with solutions that a language model wrote."
    license: str = "unknown"
    """An identifier that the hub knows, such as cc-by-4.0."""
    terms: dict[str, str] = field(default_factory=dict)
    """What else binds users: a teacher or source -> its licence."""
    seed: int = 42
    file_mb: int = 1024
    """MiB of the input's rows that go into one file of each split."""
    workers: int | None = field(default=None, metadata={"decides": False})
    """Processes; the result does not depend on it. None: one per core, and one where there is little to do."""


def check(cfg: Config) -> None:
    wrong = {name: rows for name, rows in cfg.splits.items() if rows is not None and rows < 1}
    if wrong or not cfg.splits:
        raise ValueError(
            f"stages.{cfg.name}.splits={dict(cfg.splits)}; it needs splits of at least one row, or null for all"
        )
    bad = [name for name in cfg.splits if not name.replace("_", "").isalnum() or name == ALL]
    if bad:
        raise ValueError(
            f"stages.{cfg.name}.splits: {bad[0]!r} cannot be a split's name; letters, digits and _ can, and {ALL!r} is what "
            "`datasets` calls all of them"
        )
    _check_columns(cfg)
    if cfg.file_mb < 1 or cfg.seed < 0:
        raise ValueError(f"stages.{cfg.name}: file_mb={cfg.file_mb} must be 1 or more, seed={cfg.seed} 0 or more")


def _check_columns(cfg: Config) -> None:
    names = [*COLUMNS, *cfg.more_columns]
    twice = [name for place, name in enumerate(names) if not name or name in names[:place]]
    if twice:
        raise ValueError(
            f"stages.{cfg.name}.more_columns: {twice[0]!r} is empty or there twice; {', '.join(COLUMNS)} are always written"
        )


def run(cfg: Config) -> Facts:
    from nemo_ext.curation.choosing.row_keys import read_keys
    from nemo_ext.publish.card import write_card
    from nemo_ext.records.lineage import upstream
    from nemo_ext.rows.batches import parts

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    if any(path.resolve().is_relative_to((folder / DATASET).resolve()) for path in files):
        raise ValueError(
            f"stages.{cfg.name}.input={cfg.input} is where the data set is written to: use another run_name="
        )
    keys = read_keys(files, cfg.workers, solved=True)
    ranks = _ranks(keys, cfg.seed)
    solved = int(keys.solved.sum())
    splits = {name: rows for name, rows in cfg.splits.items() if rows is None or rows < solved}
    written = _write(cfg, files, parts(files, cfg.file_mb << 20), ranks, splits)
    require_rows(written.kept, cfg.name, written.dropped)
    dataset = folder / DATASET
    write_card(dataset / "README.md", _card(cfg, written, keys, ranks, splits), *upstream(files))
    return Facts(
        **files.facts,
        outputs=[dataset / "README.md", *sorted(dataset.glob("*/*"))],
        rows_in=written.kept + sum(written.dropped.values()),
        rows_out=written.kept,
        dropped=written.dropped,
        seeds={"splits": cfg.seed},
        figures={"splits": dict(written.splits), "left_out": sorted(set(cfg.splits) - set(splits))}
        | ({"layouts": dict(sorted(written.layouts.items()))} if written.layouts else {}),
    )


def _ranks(keys: "RowKeys", seed: int) -> Any:
    """[rows] int32: the place in the fair order of every row with a solution; of the others, past all of them."""
    import numpy as np

    from nemo_ext.curation.choosing.downsample import fair_rank

    ranks = np.full(len(keys), np.iinfo(np.int32).max, np.int32)
    ranks[keys.solved] = fair_rank(keys.problems[keys.solved], seed)
    return ranks


def _write(cfg: Config, files: "RowFiles", cut: "list[Part]", ranks: Any, splits: dict[str, int | None]) -> "Written":
    from nemo_ext.publish.splits import RECORDS, Written, make_writer
    from nemo_ext.records.progress import Progress
    from nemo_ext.rows.part_files import remove_torn
    from nemo_ext.rows.passes import run_batches, worker_count

    dataset = Path(cfg.output_dir) / DATASET
    _remove_others(dataset, len(cut))
    remove_torn(Path(cfg.output_dir) / RECORDS)
    progress, written = Progress(Path(cfg.output_dir), "files"), Written()
    make = partial(make_writer, dataset, splits, len(cut), list(cfg.more_columns))
    done = run_batches(make, _tasks(cut, ranks), worker_count(cfg.workers, files))
    for number, (_, part) in enumerate(done, start=1):
        written.add(part)
        progress.update(number, len(cut), rows=written.kept)
    return written


def _tasks(cut: "list[Part]", ranks: Any) -> "Iterator[Task]":
    from nemo_ext.publish.splits import Task
    from nemo_ext.rows.batches import batches
    from nemo_ext.rows.usable import count_usable

    first = 0
    for index, part in enumerate(cut):
        count = sum(count_usable(batch) for batch in batches(part, index))
        yield Task(index, part, ranks[first : first + count].tobytes())
        first += count


def _remove_others(dataset: Path, count: int) -> None:
    """Files of an input that was cut otherwise, or that a killed run had begun: readers take every file that is there."""
    for path in dataset.glob("*/*"):
        if f"-of-{count:05d}." not in path.name or path.suffix == ".tmp":
            path.unlink()


def _card(cfg: Config, written: "Written", keys: "RowKeys", ranks: Any, splits: dict[str, int | None]) -> "Card":
    import numpy as np

    from nemo_ext.publish.card import Card, Split

    data = Path(cfg.output_dir) / DATASET / "data"
    made = []
    for name, rows in splits.items():
        chosen = keys.problems[keys.solved if rows is None else ranks < rows]
        size = sum(path.stat().st_size for path in data.glob(f"{name}-*.parquet"))
        made.append(Split(name, written.splits[name], len(np.unique(chosen)), size / 1e6, written.sizes[name]))
    return Card(
        title=cfg.title,
        description=cfg.description,
        license=cfg.license,
        terms=dict(cfg.terms),
        splits=made,
        sources=written.sources,
        lengths=written.lengths,
        more_columns=list(cfg.more_columns),
        seed=cfg.seed,
        digest=hashlib.sha256("".join(written.digests).encode()).hexdigest()[:16],
    )
