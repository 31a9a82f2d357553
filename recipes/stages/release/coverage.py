"""Tabulate what became of every sample: how many problems each prompt strategy solved, what was kept, what dropped and why.

In:  problems; the rows of the stage that asked a model for samples of them, and of every stage after it, kept and dropped
Out: coverage.json, {"strategies": ["default", "masked"], "stages": ["solve", "grade", "filter"], "rows": [...]}, with a
     row for each source and strategy, for all strategies of it, and for everything, as
     nemo_ext/curation/coverage/table.py has them. Samples of one way of asking are of the strategy "(no strategy)".
Every sample is followed from stage to stage: one that is lost, counted twice or of another run stops the stage.
Held in memory: a bit a sample and some 500 bytes for each problem, strategy and stage, and 16 bytes a correct solution.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import Stage

if TYPE_CHECKING:
    from nemo_ext.curation.coverage.account import Gathered
    from nemo_ext.curation.coverage.written import Written


@dataclass(kw_only=True)
class Config(Stage):
    problems: str = field(default=MISSING, metadata={"path": True})
    """The stage with the problems, all of which count: also those without any sample."""
    samples: str = field(default=MISSING, metadata={"path": True})
    """The stage that asked for samples of them."""
    stages: list[str] = field(default=MISSING, metadata={"path": True})
    """The stages after it, each reading what the one before it wrote."""
    graded: str = field(default=MISSING, metadata={"path": True})
    """The one of them whose is_correct says what is correct."""
    strategies: list[str] = field(default_factory=list)
    """The order of the table, and in which coverage adds up. Others follow as they were asked; empty: all as asked."""
    workers: int | None = field(default=None, metadata={"decides": False})
    """Processes that read; the result does not depend on it. None: one per core."""


def check(cfg: Config) -> None:
    if not cfg.stages:
        raise ValueError(f"stages.{cfg.name}.stages is empty: list the stages after {cfg.samples}, in order")
    if cfg.graded not in cfg.stages:
        raise ValueError(f"stages.{cfg.name}.graded={cfg.graded}: it must be one of stages, {list(cfg.stages)}")


def run(cfg: Config) -> Facts:
    from nemo_ext.curation.coverage.account import asked_samples, follow
    from nemo_ext.curation.coverage.table import Run, strategies_of, table
    from nemo_ext.curation.coverage.written import require_chain, written
    from nemo_ext.records.files import write_json_atomic
    from nemo_ext.rows.row import input_files, input_patterns

    files, stages = input_files(cfg.problems), [written(folder) for folder in (cfg.samples, *cfg.stages)]
    require_chain(stages)
    gathered = [_gather(cfg, stage) for stage in stages]
    asked = asked_samples(gathered[0])
    steps = follow(asked, gathered)
    seen = [each for stage in gathered for each in (stage.kept, stage.dropped)]
    sources = _sources(cfg, files, gathered[0])
    strategies = strategies_of(asked, [key for each in seen for key in each], cfg.strategies)
    rows = table(Run(sources, asked, steps, seen, strategies))
    found = {
        "strategies": strategies,
        "stages": [stage.name for stage in stages],
        "unreadable": {key.reason: seen.counts.total() for key, seen in gathered[0].dropped.items() if key.id is None},
        "rows": rows,
    }
    path = Path(cfg.output_dir) / "coverage.json"
    write_json_atomic(path, found)
    return Facts(
        inputs=[*files, *(file for stage in stages for file in stage.files)],
        listed=[*input_patterns(cfg.problems), *(pattern for stage in stages for pattern in stage.patterns)],
        outputs=[path],
        figures=found,
    )


def _gather(cfg: Config, stage: "Written") -> "Gathered":
    from nemo_ext.curation.coverage.account import Gathered
    from nemo_ext.curation.coverage.seen import Look, gather

    first, last = stage.folder == cfg.samples, stage.folder == cfg.stages[-1]
    kept = Look(problems=first, traces=first, correct=stage.folder == cfg.graded, kept=last)
    try:
        return Gathered(
            stage.name,
            gather(stage.outputs, kept, cfg.workers),
            gather(stage.dropped, Look(dropped=True, asked=first), cfg.workers),
        )
    except ValueError as error:
        raise ValueError(f"{stage.folder}: {error}") from error


def _sources(cfg: Config, files: list[Path], first: "Gathered") -> dict[Any, str]:
    """Id of each problem -> its source.

    Raises:
        ValueError: two problems of one id; a sample of a problem that is not among them.
    """
    from nemo_ext.curation.coverage.seen import text_hash
    from nemo_ext.rows.passes import scan_rows

    sources: dict[Any, str] = {}
    texts: dict[Any, bytes] = {}
    for row in (row for rows in scan_rows(files, lambda: list, workers=1) for row in rows):
        name = row.get("id")
        if name is None or name in sources:
            raise ValueError(f"{cfg.problems} has two problems with the id {name!r}, or without any")
        sources[name] = str(row.get("problem_source") or "(no source)")
        texts[name] = text_hash(row.get("problem"))
    for key, seen in [*first.kept.items(), *first.dropped.items()]:
        if key.id is not None and (key.id not in texts or (seen.problem and seen.problem != texts[key.id])):
            raise ValueError(
                f"{cfg.samples} has a sample of problem {key.id!r}, which {cfg.problems} does not have"
                + (" in these words" if key.id in texts else "")
            )
    return sources
