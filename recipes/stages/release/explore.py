"""Make a page to look at problems with all their samples, and at the rows that stages kept and dropped.

In:  a run's folder: its finished evaluations ({"benchmark": "math500", "id": "7", "problem": "...", "generation": "...",
     "is_correct": true, "verdicts": {...}}, samples of a problem together) and every other stage's rows
Out: index.html, which a browser opens from disk, and parts/, which it loads
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import Stage


@dataclass(kw_only=True)
class Config(Stage):
    inputs: list[str] = field(default=MISSING, metadata={"path": True})
    """Folders of runs, stages, evaluations or rows, or patterns of such: `[runs/a, "runs/b/evaluate/*"]`."""
    title: str = MISSING
    kept_rows: int = 1000
    """Rows of each stage that are shown of those it kept: a seeded sample where there are more."""
    dropped_rows: int = 200
    """The same, for each reason of those it dropped."""
    max_text_chars: int = 50_000
    """Length of one text; the rest of a longer one is left out."""
    seed: int = 0
    """Decides which rows are shown as samples."""


def check(cfg: Config) -> None:
    for key in ("kept_rows", "dropped_rows", "max_text_chars"):
        value = getattr(cfg, key)
        if value < 1:
            raise ValueError(f"stages.{cfg.name}.{key}={value}: at least 1")
    if not cfg.inputs:
        raise ValueError(f"stages.{cfg.name}.inputs is empty: give the folder of a run, a stage or an evaluation")


def run(cfg: Config) -> Facts:
    from nemo_ext.explorer.explorer import INDEX, PARTS, Options, write

    options = Options(
        title=cfg.title,
        kept_rows=cfg.kept_rows,
        dropped_rows=cfg.dropped_rows,
        max_text_chars=cfg.max_text_chars,
        seed=cfg.seed,
    )
    folder = Path(cfg.output_dir)
    explored = write(folder, cfg.inputs, options)
    parts = sorted(path for path in (folder / PARTS).rglob("*") if path.is_file())
    figures = {"explorer": str(folder / INDEX), **explored.figures}
    return Facts(inputs=explored.inputs, outputs=[folder / INDEX, *parts], seeds={"rows": cfg.seed}, figures=figures)
