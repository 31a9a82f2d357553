"""Estimate what a plan will take before anything is submitted: memory, hours, GPU-hours and disk, stage by stage.

Figures rest on published rates and a stated MFU (recipes/README.md, "Estimates"); what nothing is published for is
`unknown`. Only GPU stages have hours: the others run on the CPU in minutes to hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from launchers.estimates.estimate_serving import COMPLETION_TOKENS, completions, rate
from launchers.estimates.estimate_training import TrainingEstimate, estimate_training, number, short
from launchers.estimates.fit_serving import ServingFit, fit_serving
from launchers.planning.cluster import Cluster
from launchers.planning.plan import PlannedStage
from nemo_ext.machine.gpus import Gpu, find_gpu, gpu_named, list_devices
from recipes.work import Asking, Training

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One stage. None: not known, or without GPUs not asked."""

    stage: str
    num_gpus: int
    places: str
    summary: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    """(what, the figures), for dry_run."""
    memory: str = ""
    hours: float | None = None
    gpu_hours: float | None = None
    refusal: str | None = None
    warnings: list[str] = field(default_factory=list)


def gpu_of(cluster: Cluster, stages: Sequence[PlannedStage]) -> Gpu | None:
    """The cluster's kind of GPU; on this machine what nvidia-smi says, when a stage needs one.

    Raises:
        ValueError: cluster.gpu or cluster.mfu is nothing that can be.
    """
    if cluster.mfu is not None and not 0 < cluster.mfu <= 1:
        raise ValueError(f"cluster.mfu={cluster.mfu}: it must be above 0 and at most 1")
    if cluster.gpu is not None:
        return gpu_named(cluster.gpu)
    if not cluster.runs_here or not any(stage.resources.gpus for stage in stages):
        return None
    devices = list_devices()
    return find_gpu(devices[0]) if devices else None


def estimate(
    selected: list[PlannedStage], stages: list[PlannedStage], cluster: Cluster, gpu: Gpu | None
) -> list[Estimate]:
    """Estimates of the selected stages that train or want GPUs.

    Raises:
        ValueError: a model that the trainer does not support, or fp8 on GPUs without it.
    """
    return [
        _estimate(stage, stages, cluster, gpu)
        for stage in selected
        if isinstance(stage.work, Training) or stage.resources.gpus
    ]


def _estimate(stage: PlannedStage, stages: list[PlannedStage], cluster: Cluster, gpu: Gpu | None) -> Estimate:
    trainings = [task.work for task in stage.differing_tasks if isinstance(task.work, Training)]
    if trainings:
        each = [estimate_training(stage, training.config, gpu, cluster.mfu) for training in trainings]
        return _of_training(stage, each, gpu, min(len(each), cluster.tasks_at_once))
    return _of_serving(stage, stages, cluster, gpu)


def _of_training(
    stage: PlannedStage, trainings: Sequence[TrainingEstimate], gpu: Gpu | None, at_once: int
) -> Estimate:
    """The estimate of all the stage's variants; memory and figures are those of the one that takes longest."""
    of = max(trainings, key=lambda each: each.hours or 0)
    known = [each.hours for each in trainings if each.hours is not None]
    hours = sum(known) if len(known) == len(trainings) else None
    have = f"/{gpu.memory_gib:.1f}" if gpu else ""
    return Estimate(
        stage=stage.name,
        num_gpus=_gpus(stage),
        places=_places(stage),
        summary=of.summary if len(trainings) == 1 else f"the longest: {of.summary}",
        lines=of.lines,
        memory=f"{of.memory_gib:.1f}{have}" if of.memory_gib is not None else "",
        hours=None if hours is None else max([hours / at_once, *known]),
        gpu_hours=None if hours is None else hours * _gpus(stage),
        refusal=next((each.refusal for each in trainings if each.refusal), None),
        warnings=list(dict.fromkeys(warning for each in trainings for warning in each.warnings)),
    )


def _of_serving(stage: PlannedStage, stages: list[PlannedStage], cluster: Cluster, gpu: Gpu | None) -> Estimate:
    fit = fit_serving(stage, gpu) if isinstance(stage.work, Asking) else ServingFit()
    summary, time_lines, gpu_hours, at_once = _asked(stage, stages, cluster, gpu)
    return Estimate(
        stage=stage.name,
        num_gpus=_gpus(stage),
        places=_places(stage),
        summary=summary,
        lines=[*fit.lines, *(time_lines or [("asks", summary)])],
        memory=fit.memory,
        hours=None if gpu_hours is None else gpu_hours / (_gpus(stage) * at_once),
        gpu_hours=gpu_hours,
        refusal=fit.refusal,
        warnings=fit.warnings,
    )


def _asked(
    stage: PlannedStage, stages: list[PlannedStage], cluster: Cluster, gpu: Gpu | None
) -> tuple[str, list[tuple[str, str]], float | None, int]:
    """Summary, lines, GPU-hours and tasks at once of what a stage asks its servers."""
    content, work, per_task = stage.tasks[0].content, stage.work, _gpus(stage)
    at_once = min(len(stage.tasks), cluster.tasks_at_once)
    if not isinstance(work, Asking):
        return f"{UNKNOWN}: nothing is published for it", [], None, at_once
    count, why = completions(stage, stages)
    if count is None:
        return f"{UNKNOWN}: {why}", [], None, at_once
    if content["server"]["kind"] == "external":
        return f"{short(count)} completions; {UNKNOWN}: how fast that server is", [], None, at_once
    servers = content["server"].get("replicas", 1)
    tokens_per_s = rate(content["model"]["hf_path"], gpu.name if gpu else None, per_task // servers)
    if tokens_per_s is None:
        lacking = (
            f"no published rate for {content['model']['name']} on {per_task // servers} {gpu.name}" if gpu else ""
        )
        return f"{short(count)} completions; {lacking or 'unknown GPU'}", [], None, at_once
    each = min(COMPLETION_TOKENS, work.max_tokens or COMPLETION_TOKENS)
    gpu_hours = count * each / tokens_per_s / 3600 * per_task / servers
    lines = [
        ("asks", f"{short(count)} completions ({why}) x {each} tokens, assumed"),
        (
            "time",
            f"{number(gpu_hours / (per_task * at_once))} h with {at_once} of {len(stage.tasks)} task(s) at once, "
            f"{number(gpu_hours)} GPU-hours, at {tokens_per_s:,} output tokens/s per server (published, FP8, full load)",
        ),
    ]
    return f"{short(count)} completions x {each} tokens", lines, gpu_hours, at_once


def _gpus(stage: PlannedStage) -> int:
    """GPUs of one task."""
    return stage.resources.nodes * stage.resources.gpus


def _places(stage: PlannedStage) -> str:
    return f"{len(stage.tasks):,} x {_gpus(stage)}"


def refuse(estimates: Sequence[Estimate], cluster: Cluster) -> None:
    """Raises ValueError for the first stage that cannot fit, unless cluster.check_memory=false."""
    for each in estimates:
        if each.refusal and cluster.check_memory:
            raise ValueError(each.refusal)


def table(estimates: Sequence[Estimate], gpu: Gpu | None) -> list[str]:
    """A heading, a line per GPU stage, and the total; empty when no stage wants a GPU."""
    shown = [each for each in estimates if each.num_gpus]
    if not shown:
        return []
    rows = [("stage", "tasks x GPUs", "GiB/GPU", "hours", "GPU-hours", "")]
    rows += [
        (each.stage, each.places, each.memory, _number(each.hours), _number(each.gpu_hours), each.summary)
        for each in shown
    ]
    rows.append(("total", "", "", "", _number(sum(each.gpu_hours or 0 for each in shown)), _left_out(shown)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    kind = f"{gpu.name}, " if gpu else "kind of GPU unknown, "
    head = f"estimate ({kind}not measured; what it rests on: recipes/README.md)"
    return [head, *(_line(row, widths) for row in rows)]


def _left_out(shown: Sequence[Estimate]) -> str:
    unknown = [each.stage for each in shown if each.gpu_hours is None]
    return f"without {', '.join(unknown)}" if unknown else ""


def _line(row: tuple[str, ...], widths: Sequence[int]) -> str:
    cells = [f"{row[0]:<{widths[0]}}", *(f"{row[i]:>{widths[i]}}" for i in range(1, 5)), row[5]]
    return "  " + "  ".join(cells).rstrip()


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else number(value)


def details(each: Estimate) -> str:
    """Comment lines for dry_run."""
    lines = each.lines or [("asks", each.summary)]
    text = [f"# estimate  {what:<7} {figures}".rstrip() for what, figures in lines]
    return "\n".join(text + [f"# estimate  warning {warning}" for warning in each.warnings])
