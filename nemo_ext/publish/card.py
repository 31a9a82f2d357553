"""The data set's card, README.md: what `datasets.load_dataset` reads to find the splits, and what a person wants to know."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nemo_ext.publish import COLUMNS
from nemo_ext.publish.splits import LENGTH_STEP, MAX_LENGTH
from nemo_ext.records.files import write_text_atomic
from nemo_ext.records.lineage import StageRecord

BAR = 40  # characters of the longest bar
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
LARGEST = "10M<n<100M"
_MARKUP = re.compile(r"[|\[\]`\\]")


@dataclass(frozen=True)
class Split:
    name: str
    rows: int
    problems: int
    megabytes: float
    arrow_bytes: int
    """Size as an Arrow table, which is what `datasets` makes of it."""


@dataclass(frozen=True)
class Card:
    """What is on it besides what the lineage tells."""

    title: str
    description: str
    license: str
    terms: Mapping[str, str]
    """What else binds whoever uses the rows: model or source -> its licence."""
    splits: Sequence[Split]
    sources: Mapping[str, int]
    lengths: Mapping[str, int]
    more_columns: Sequence[str]
    seed: int
    digest: str
    """A hash of the rows: 16 hex digits."""


def write_card(path: Path, card: Card, stages: list[StageRecord], outside: list[dict[str, Any]]) -> None:
    environment = Environment(  # noqa: S701  markdown, not HTML: what must be escaped there is, by _cell
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(drops=_drops, pairs=_pairs, cell=_cell)
    text = environment.get_template("card.md.jinja").render(
        header=_header(card),
        title=" ".join(card.title.split()),
        description=card.description,
        more_columns=list(map(_cell, card.more_columns)),
        splits=card.splits,
        seed=card.seed,
        sources=[
            (_cell(name), rows) for name, rows in sorted(card.sources.items(), key=lambda each: (-each[1], each[0]))
        ],
        total=sum(card.sources.values()),
        lengths=list(_histogram(card.lengths)),
        stages=stages,
        decontaminated=[stage for stage in stages if "by_benchmark" in stage.figures],
        license=_cell(card.license),
        terms={_cell(name): _cell(terms) for name, terms in card.terms.items()},
        outside=[
            {"name": Path(each["path"]).name.replace("`", "'"), "rows": each.get("rows", ""), "sha256": each["sha256"]}
            for each in outside
        ],
    )
    write_text_atomic(path, text)


def _header(card: Card) -> str:
    """The YAML that the hub and `datasets` read.

    `datasets` keeps what it has read under the folder's name and a hash of this, and every published folder has the same
    name: sizes and the digest are what tells two data sets apart.
    """
    rows = max((split.rows for split in card.splits), default=0)
    fields = {
        "language": ["en"],
        "license": card.license,
        "task_categories": ["question-answering", "text-generation"],
        "tags": ["math", "synthetic"],
        "pretty_name": card.title,
        "size_categories": [next((name for limit, name in SIZES if rows < limit), LARGEST)],
        "configs": [
            {
                "config_name": "default",
                "description": f"rows {card.digest}",
                "data_files": [{"split": split.name, "path": f"data/{split.name}-*.parquet"} for split in card.splits],
            }
        ],
        "dataset_info": {
            "config_name": "default",
            "features": [{"name": name, "dtype": "string"} for name in (*COLUMNS, *card.more_columns)],
            "splits": [
                {"name": split.name, "num_bytes": split.arrow_bytes, "num_examples": split.rows}
                for split in card.splits
            ],
            "dataset_size": sum(split.arrow_bytes for split in card.splits),
        },
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _histogram(lengths: Mapping[str, int]) -> Any:
    most = max(lengths.values(), default=1)
    for low in sorted(map(int, lengths)):
        rows = lengths[str(low)]
        yield low, low + LENGTH_STEP if low < MAX_LENGTH else None, rows, "\u2588" * max(1, round(BAR * rows / most))


def _drops(stage: StageRecord) -> str:
    return ", ".join(f"{count:,} {_cell(reason)}" for reason, count in sorted(stage.dropped.items()))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{_cell(name)} {value}" for name, value in values.items())


def _cell(text: str) -> str:
    """Text that cannot break out of a table, and is neither HTML nor a link."""
    plain = _MARKUP.sub(r"\\\g<0>", html.escape(str(text), quote=False))
    return " ".join(plain.split())
