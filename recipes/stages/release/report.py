"""Gather a run's manifests, rows and scores into one self-contained page.

In:  every finished stage of the run folder
Out: <run>/report.html
"""

import glob
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from nemo_ext.records import manifest
from nemo_ext.records.manifest import Facts
from recipes.stage import Stage


@dataclass(kw_only=True)
class PaperValue:
    key: str = MISSING
    """<stage>.<key of its config>."""
    value: Any = MISSING
    source: str = MISSING
    """Where the value is published."""


@dataclass(kw_only=True)
class Point:
    """One model of an ablation."""

    model: str = MISSING
    x: float | None = None
    """Where on the axis; None: beside the others, under its name."""
    series: str = ""
    published: float | None = None
    """Accuracy in percent, as published."""


@dataclass(kw_only=True)
class Ablation:
    """What a recipe varies, and the models that differ in it."""

    x: str = MISSING
    """The axis."""
    log: bool = False
    points: list[Point] = field(default_factory=list)
    rows_of: str | None = None
    """Stage whose variants, named as the models, have so many rows: they are the axis."""
    source: str = ""
    """Where the published values are from."""


@dataclass(kw_only=True)
class PublishedSolutions:
    """What is published of the solutions that were asked for in some ways."""

    source: str = MISSING
    """As problem_source."""
    strategies: list[str] = field(default_factory=list)
    """Of one strategy, or of these together; empty: of all."""
    coverage: float | None = None
    """Problems with a correct solution, in percent."""
    unique: int | None = None
    """Distinct correct solutions."""


@dataclass(kw_only=True)
class PublishedCoverage:
    """What stands beside the table of the stage coverage."""

    source: str = MISSING
    """Where the values are published."""
    solutions: list[PublishedSolutions] = field(default_factory=list)
    code_blocks: dict[str, float] = field(default_factory=dict)
    """Percent of the solutions with "0", "1" and "2+" blocks of code."""


@dataclass(kw_only=True)
class Config(Stage):
    title: str = MISSING
    run_dir: str = MISSING
    paper: list[PaperValue] = field(default_factory=list)
    """Published settings this run is compared with."""
    ablation: Ablation | None = None
    published: list[str] = field(default_factory=list)
    """Models of nemo_ext/evaluation/published_scores.yaml whose scores stand beside this run's."""
    coverage: PublishedCoverage | None = None
    allow_contract_mismatch: bool = False
    """Compare scores whose contracts differ all the same."""


def check(cfg: Config) -> None:
    from nemo_ext.evaluation.published import published_scores

    try:
        published_scores(cfg.published)
    except ValueError as error:
        raise ValueError(f"stages.{cfg.name}.published: {error}") from error


def run(cfg: Config) -> Facts:
    from nemo_ext.report import coverage_section, run_folder, run_sections, score_sections
    from nemo_ext.report.render import render

    root = Path(cfg.run_dir)
    finished = {name: folder for name, folder in run_folder.stages(root).items() if folder != Path(cfg.output_dir)}
    found = run_folder.scores(finished)
    strategies = coverage_section.coverage(finished, asdict(cfg.coverage) if cfg.coverage else None)
    sections = {
        "title": cfg.title,
        "subtitle": f"{root.name}, code {manifest.code_version()}",
        "warnings": [
            *score_sections.contract_notes(found),
            *score_sections.early_finish_notes(found),
            *run_sections.warnings(finished, found),
            *coverage_section.notes(strategies),
            *run_sections.out_of_date(finished),
        ],
        "summary": None
        if cfg.ablation
        else run_sections.summary(finished, found),  # the figure and its table say it all
        "ablation": ablation(cfg.ablation, finished, found),
        "leaderboard": score_sections.leaderboard(found),
        "accuracy": score_sections.accuracy(found),
        "comparisons": score_sections.comparisons(found, cfg.allow_contract_mismatch),
        "breakdown": score_sections.breakdown(found),
        "checkpoints": score_sections.checkpoints(found),
        "published": score_sections.published(found, cfg.published),
        "explorers": run_sections.explorers(root, finished),
        "training": run_sections.training(finished),
        "funnel": run_sections.funnel(finished),
        "coverage": strategies,
        "decontamination": run_sections.decontamination(finished),
        "samples": run_sections.samples(finished),
        "resources": run_sections.resources(finished),
        "differences": differences(root, cfg.paper),
        "lineage": run_sections.lineage(finished),
    }
    out = root / "report.html"
    render(sections, out)
    inputs = [folder / manifest.MANIFEST for folder in finished.values()]
    listed = [f"{glob.escape(str(root))}/{below}/{manifest.MANIFEST}" for below in ("*", "*/*")]
    return Facts(inputs=inputs, listed=listed, outputs=[out], figures={"report": str(out)})


def ablation(
    asked: Ablation | None, finished: dict[str, Path], found: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Each model's score over all benchmarks, against what was varied."""
    from nemo_ext.report.run_folder import manifests
    from nemo_ext.report.score_sections import overall

    if asked is None:
        return None
    rows = {name: each["rows_out"] for name, each in manifests(finished)}
    points = []
    for point in asked.points:
        if point.model not in found:
            continue
        scored = found[point.model]["benchmarks"].values()
        correct, total = (sum(score[key] for score in scored) for key in ("correct", "total"))
        x = rows.get(f"{asked.rows_of}/{point.model}") if asked.rows_of else point.x
        drawn = {"model": point.model, "x": x, "series": point.series, "published": point.published}
        points.append(drawn | {"correct": correct, "total": total} | overall(found[point.model]))
    return {"x": asked.x, "log": asked.log, "source": asked.source, "points": points} if points else None


def differences(root: Path, paper: list[PaperValue]) -> list[dict[str, Any]]:
    """Where this run's settings are not the published ones."""
    listed = []
    for published in paper:
        stage, _, key = published.key.partition(".")
        config = root / stage / "config.yaml"
        ours = OmegaConf.select(OmegaConf.load(config), key) if config.is_file() else None
        if ours != published.value:
            listed.append({"key": published.key, "ours": ours, "paper": published.value, "source": published.source})
    return listed
