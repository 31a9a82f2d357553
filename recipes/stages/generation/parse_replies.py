"""Read what a model replied with a parser by name: one value of a row, or of a list a row for each.

In:  rows with a reply, such as a generate stage's: {"id": "9c1e", "topic": "algebra", "sample_index": 0, "finish_reason":
     "stop", "generation": "1. Groups\\n2. Rings"}
Out: the row and its value, {"verdict": true} with parser=verdict to=verdict. Of a list (numbered_list, yaml_list) a row for
     each item, {"id": "77b0", "made_of": "9c1e", "made_of_sample": 0, "subtopic": "Groups", ...}, with an id of its own;
     the manifest counts those beyond the first as rows_made
Dropped: no_reply (no text in `column`), truncated (the reply was cut at max_tokens, and its last item or line may be half of
     one), no_<parser> (the parser does not find one clearly)
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from nemo_ext.prompts.reply_parsers import parser
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import Row, RowOutcome, content_id, require_rows
from recipes.stage import RowStage, row_files


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    """A generate stage's folder, or rows of your own."""
    parser: str = MISSING
    """A file of nemo_ext/prompts/replies, such as numbered_list."""
    params: dict[str, Any] = field(default_factory=dict)
    """The parser's parameters, as {high: 4} for score."""
    column: str = "generation"
    """Where the reply is."""
    to: str = MISSING
    """The column that takes the value."""
    keep_truncated: bool = False
    """Read replies that were cut at max_tokens all the same."""


def check(cfg: Config) -> None:
    try:
        parser(cfg.parser, cfg.params)
    except ValueError as error:
        raise ValueError(f"stages.{cfg.name}: {error}") from error
    if cfg.to in ("", "id", cfg.column):
        raise ValueError(f"stages.{cfg.name}.to={cfg.to!r}: name a column that is neither id nor {cfg.column}")


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.passes import map_rows

    files = row_files(cfg, cfg.input)
    mapped = map_rows(
        Path(cfg.output_dir), files, partial(reader, cfg), workers=cfg.workers, shard=cfg.shard, shards=cfg.shards
    )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    return mapped.facts(files)


def reader(cfg: Config) -> Callable[[list[Row], Counter[str]], Iterator[RowOutcome]]:
    from nemo_ext.rows.passes import EachRow

    return EachRow(partial(outcomes, cfg, parser(cfg.parser, cfg.params)))


def outcomes(cfg: Config, parse: Callable[[str], Any], row: Row, counts: Counter[str]) -> Iterator[RowOutcome]:
    reply = row.get(cfg.column)
    if not isinstance(reply, str):
        yield row, "no_reply"
    elif row.get("finish_reason") == "length" and not cfg.keep_truncated:
        yield row, "truncated"
    elif (value := parse(reply)) is None:
        yield row, f"no_{cfg.parser}"
    elif isinstance(value, list):
        counts["lists"] += 1
        for place, item in enumerate(value):
            own = content_id(str(row.get("id")), str(row.get("sample_index", 0)), str(place))
            yield _item(row) | {"id": own, "made_of": row.get("id"), cfg.to: item}, None
    else:
        yield row | {cfg.to: value}, None


def _item(row: Row) -> Row:
    """A row of its own: which sample its origin was is no longer which sample it is."""
    return {"made_of_sample" if key == "sample_index" else key: value for key, value in row.items()}
