"""Give an evaluation to other tools: files as lm-evaluation-harness and NeMo-Skills write them.

In:  the folder of an evaluation (evaluate, rescore, search)
Out: lm_eval/<model>/results_<time>.json and samples_<benchmark>_<time>.jsonl;
     nemo_skills/eval-results/<benchmark>/output-rs0.jsonl, ... and metrics.json
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import Stage

if TYPE_CHECKING:
    from nemo_ext.rows.row import Row

FORMATS = ("lm_eval", "nemo_skills")


@dataclass(kw_only=True)
class Config(Stage):
    input: str = field(default=MISSING, metadata={"path": True})
    """An evaluation's folder."""
    formats: list[str] = field(default_factory=lambda: list(FORMATS))


def check(cfg: Config) -> None:
    wrong = [name for name in cfg.formats if name not in FORMATS]
    if wrong or not cfg.formats:
        raise ValueError(f"stages.{cfg.name}.formats={list(cfg.formats)}; it may hold {' and '.join(FORMATS)}")


def run(cfg: Config) -> Facts:
    from datetime import datetime

    from nemo_ext.evaluation.scores import SCORES, count_files, read_scores
    from nemo_ext.interop.lm_eval import write_lm_eval
    from nemo_ext.interop.nemo_skills import write_nemo_skills
    from nemo_ext.records.manifest import code_version
    from nemo_ext.rows.part_files import remove_torn
    from nemo_ext.rows.row import input_files

    scores, path = read_scores(Path(cfg.input)), Path(cfg.input) / SCORES
    files, folder = input_files(cfg.input), Path(cfg.output_dir)
    problems = count_files(files)
    if not problems:
        raise ValueError(f"{cfg.input} is an evaluation without rows; evaluate again")
    if unscored := {problem.benchmark for problem in problems} - scores["benchmarks"].keys():
        raise ValueError(
            f"{path} has no score of {', '.join(sorted(unscored))}, of which there are rows; rescore them"
        )
    few, many = (pick(problem.num_samples for problem in problems) for pick in (min, max))
    if few != many and "nemo_skills" in cfg.formats:
        raise ValueError(
            f"problems have {few} to {many} samples, and NeMo-Skills has a file for each sample of all: "
            f"stages.{cfg.name}.formats=[lm_eval] leaves its layout out"
        )
    for place in folder.rglob("*/"):
        remove_torn(place)
    written: list[Path] = []
    if "lm_eval" in cfg.formats:
        time = datetime.fromtimestamp(path.stat().st_mtime)
        written += write_lm_eval(folder / "lm_eval", _rows(files), scores, time, code_version())
    if "nemo_skills" in cfg.formats:
        written += write_nemo_skills(folder / "nemo_skills", _rows(files), scores)
    rows = sum(problem.num_samples for problem in problems)
    return Facts(inputs=[*files, path], outputs=written, rows_in=rows, rows_out=rows)


def _rows(files: list[Path]) -> "Iterator[Row]":
    from nemo_ext.rows.row import read_rows

    for file in files:
        yield from read_rows(file)
