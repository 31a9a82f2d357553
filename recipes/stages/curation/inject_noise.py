"""Make some of the rows wrong, exactly as many as asked for: what noise in a training set costs.

In:  graded rows (is_correct)
Out: `num_rows` rows; of the noisy ones {"noise": "mispaired", "solution_of": "9c1e..."} with another problem's solution,
     or {"noise": "wrong_answer"} with a solution of its own that ends in a wrong answer
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import OF_A_SOLUTION, Row, require_rows
from recipes.stage import ReadsRows, row_files

if TYPE_CHECKING:
    from nemo_ext.curation.choosing.row_keys import RowKeys

KINDS = ("mispaired", "wrong_answer")
REASONS = ("not_sampled",)
SELECTED = "selected"


@dataclass(kw_only=True)
class Config(ReadsRows):
    input: str = field(default=MISSING, metadata={"path": True})
    kind: str = "mispaired"
    """mispaired: correct solutions, of other problems. wrong_answer: solutions graded as not correct."""
    rate: float = 0.0
    """Share of the rows, in [0, 1]: exactly round(rate * num_rows) rows are noisy."""
    num_rows: int | None = None
    """Rows in all, chosen fairly over the problems; None: as many as there are correct ones."""
    seed: int = 42
    workers: int | None = field(default=None, metadata={"decides": False})


def check(cfg: Config) -> None:
    if cfg.kind not in KINDS:
        raise ValueError(f"stages.{cfg.name}.kind={cfg.kind!r}; it may be one of {KINDS}")
    if cfg.seed < 0 or (cfg.num_rows is not None and cfg.num_rows < 1):
        raise ValueError(f"stages.{cfg.name}: num_rows={cfg.num_rows} must be 1 or more, seed={cfg.seed} 0 or more")
    if not 0 <= cfg.rate <= 1:
        raise ValueError(f"stages.{cfg.name}.rate={cfg.rate}; it is a share, in [0, 1]")


def run(cfg: Config) -> Facts:
    from nemo_ext.curation.choosing.row_keys import read_keys
    from nemo_ext.rows.part_files import remove_torn
    from nemo_ext.rows.select import select_rows

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    keys = read_keys(files, cfg.workers, correct=True)
    chosen, noisy = _choose(cfg, keys)
    shutil.rmtree(folder / SELECTED, ignore_errors=True)  # of a run that was killed
    remove_torn(folder)
    mapped = select_rows(
        folder / SELECTED, files, ~chosen, REASONS, workers=cfg.workers, compact=True, lengths=keys.lengths
    )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    _write(cfg, mapped.outputs, keys.problems[chosen], noisy[chosen])
    for path in (folder / SELECTED).glob("dropped*.jsonl"):
        os.replace(path, folder / path.name)
    shutil.rmtree(folder / SELECTED)
    return Facts(
        **files.facts,
        outputs=[folder / "output.jsonl"],
        rows_in=mapped.total,
        rows_out=mapped.kept,
        dropped=mapped.dropped,
        seeds={"noise": cfg.seed},
        figures={"noisy": int(noisy.sum()), "rate": round(float(noisy.sum()) / mapped.kept, 6)}
        | mapped.layout_figures,
    )


def _choose(cfg: Config, keys: "RowKeys") -> tuple[Any, Any]:
    """([rows] bool: those to write, [rows] bool: the noisy ones among them)."""
    import numpy as np

    from nemo_ext.curation.choosing.downsample import fair_rank
    from nemo_ext.curation.noise import noisy_rows

    correct, wrong = np.flatnonzero(keys.correct == 1), np.flatnonzero(keys.correct == 0)
    total = len(correct) if cfg.num_rows is None else cfg.num_rows
    num_noisy = round(cfg.rate * total)
    need = {"correct": total - (num_noisy if cfg.kind == "wrong_answer" else 0), "wrong": 0}
    need["wrong"] = total - need["correct"]
    if not total or need["correct"] > len(correct) or need["wrong"] > len(wrong):
        raise ValueError(
            f"stages.{cfg.name}: {total} rows at rate {cfg.rate} need {need['correct']} correct and {need['wrong']} wrong "
            f"ones; the input has {len(correct)} and {len(wrong)} by is_correct. Grade the rows first, or set num_rows lower"
        )
    chosen, noisy = np.zeros(len(keys), bool), np.zeros(len(keys), bool)
    right = correct[fair_rank(keys.problems[correct], cfg.seed) < need["correct"]]
    chosen[right] = True
    if cfg.kind == "mispaired":
        noisy[right[noisy_rows(len(right), cfg.rate, cfg.seed)]] = True
    else:
        bad = wrong[fair_rank(keys.problems[wrong], cfg.seed) < need["wrong"]]
        chosen[bad] = noisy[bad] = True
    return chosen, noisy


def _write(cfg: Config, selected: list[Path], problems: Any, noisy: Any) -> None:
    import numpy as np

    from nemo_ext.curation.noise import mispair
    from nemo_ext.records.files import atomic_open
    from nemo_ext.rows.line_index import LineIndex
    from nemo_ext.rows.row import dumps

    places = np.flatnonzero(noisy)
    donors = dict(zip(places.tolist(), places[mispair(problems[places], cfg.seed)].tolist(), strict=True))
    with LineIndex(selected) as lines, atomic_open(Path(cfg.output_dir) / "output.jsonl") as out:
        for index, line in enumerate(lines):
            if noisy[index]:
                row = lines.row(index)
                changed = row if cfg.kind == "wrong_answer" else _with_solution_of(row, lines.row(donors[index]))
                line = dumps(changed | {"noise": cfg.kind}) + b"\n"
            out.write(line)


def _with_solution_of(row: Row, donor: Row) -> Row:
    taken = {key: donor[key] for key in OF_A_SOLUTION if key in donor}
    own = {key: value for key, value in row.items() if key not in OF_A_SOLUTION}
    return own | taken | {"is_correct": False, "solution_of": donor["id"]}
