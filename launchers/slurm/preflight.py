"""Preflight of a Slurm cluster: its clients, controller, partition and limits, images, GPUs and times."""

import os
import re
import shutil
from collections.abc import Iterable

from launchers.estimates import estimate
from launchers.planning import images, preflight
from launchers.planning.mounts import check_mounts
from launchers.planning.plan import PlannedStage
from launchers.planning.preflight import Findings
from launchers.slurm import job_arrays, sbatch, sbatch_container
from launchers.slurm import site as slurm_site
from launchers.slurm.client import client
from launchers.slurm.config import Config
from launchers.slurm.time_limit import parse_limit, show_limit

WHERE_REFUSED = {
    "account": "cluster.account",
    "partition": "cluster.partition",
    "qos": "cluster.qos",
    "reservation": "cluster.reservation",
    "feature": "cluster.constraint",
    "time": "the stage's resources.time, or cluster.max_time",
    "memory": "cluster.mem",
    "node name": "cluster.extra_sbatch",
    "unrecognized option": "cluster.extra_sbatch",
}
"""A word of Slurm's refusal -> the key to change."""
SIZES = ("nodes=", "ntasks-per-node=", "cpus-per-task=", "mem", "gpus", "gres=", "exclusive")
NOT_DECIDING = ("#SBATCH --job-name", "#SBATCH --output", "#SBATCH --array")


def look(config: Config, stages: list[PlannedStage]) -> Findings:
    """Everything that would keep these stages from running here, and what may."""
    found = Findings()
    if not stages:
        return found
    _look_at_settings(found, config)
    scripts = {stage.name: _script(found, config, stage) for stage in stages}
    ready = [stage for stage in stages if scripts[stage.name] is not None]
    if config.container in ("pyxis", "enroot"):
        _look_at_images(found, config, stages)
    if config.check_paths:
        _look_at_paths(found, config, stages)
        preflight.look_at_disk(found, stages)
    _look_at_times(found, config, ready)
    fitting = _look_at_site(found, config, ready)
    if fitting is not None:
        _look_at_queue(found, stages)
        _look_at_jobs(found, fitting, {name: text for name, text in scripts.items() if text is not None})
    return found


def _look_at_settings(found: Findings, config: Config) -> None:
    if config.container not in sbatch_container.MODES:
        modes = ", ".join(sbatch_container.MODES)
        found.failures.append(f"cluster.container={config.container!r}; it may be one of {modes}")
    preflight.look_at_secrets(found, config.env_from, config.env)
    if config.container == "none" and not config.setup and shutil.which(config.python) is None:
        found.warnings.append(f"there is no {config.python} on PATH here (cluster.python); the nodes must have it")


def _script(found: Findings, config: Config, stage: PlannedStage) -> str | None:
    """The stage's script; None, and the reason among the failures, when there can be none."""
    if stage.resources.gpus > config.gpus_per_node:
        found.failures.append(
            f"stages.{stage.name}.resources.gpus={stage.resources.gpus}, but a node here has "
            f"{config.gpus_per_node} (cluster.gpus_per_node); use more nodes with fewer GPUs each"
        )
    _look_at_memory(found, config, stage)
    text: str | None = found.attempt(lambda: sbatch.script(config, stage))
    return text


def _look_at_memory(found: Findings, config: Config, stage: PlannedStage) -> None:
    asked = memory_gib(config.mem)
    if config.check_memory and asked is not None and stage.host_gib is not None and asked < stage.host_gib:
        found.failures.append(
            f"cluster.mem={config.mem}: stages.{stage.name} needs about {stage.host_gib:,.0f} GiB of each node's own memory "
            'while it writes a checkpoint. Ask for more, leave it null to ask for just that, or take all of it ("0"). To '
            "run it as it is: cluster.check_memory=false"
        )


def memory_gib(asked: str | None) -> float | None:
    """What --mem=`asked` means, in GiB; None for all of the node ("0") or Slurm's default."""
    written = re.fullmatch(r"(\d+)([KMGT]?)B?", asked or "", re.IGNORECASE)
    if written is None or int(written[1]) == 0:
        return None
    return int(written[1]) * 1024.0 ** ("KMGT".index(written[2].upper() or "M") - 2)


def _look_at_images(found: Findings, config: Config, stages: list[PlannedStage]) -> None:
    of_stages = [found.attempt(lambda each=stage: images.of_stage(each, config.images)) for stage in stages]  # type: ignore[misc]
    for name, image in {image.name: image for image in of_stages if image is not None}.items():
        if image.sqsh is None:
            pinned = "" if image.digest else ", and containers/images.yaml pins no digest of it"
            found.warnings.append(
                f"image {name} is {image.reference}, which is not looked up{pinned}; each job imports it anew, and "
                f"++cluster.images.{name}=<a .sqsh file> saves that"
            )
        elif config.check_paths and not os.path.isfile(image.sqsh):
            found.failures.append(f"image {name}: there is no {image.sqsh}; set ++cluster.images.{name}=")


def _look_at_paths(found: Findings, config: Config, stages: list[PlannedStage]) -> None:
    preflight.look_at_folder(found, stages[0].folder.parent, "set RUNS_DIR or run_dir=")
    preflight.look_at_folder(found, sbatch.ROOT, "use a checkout on a shared file system")
    if config.container == "none":
        preflight.look_at_paths(found, stages, None)
        return
    if problems := check_mounts(config.mounts):
        found.failures += problems
    else:
        preflight.look_at_paths(found, stages, sbatch_container.mounts_of(config, stages[0]))


def _look_at_times(found: Findings, config: Config, stages: list[PlannedStage]) -> None:
    """A task that takes longer than its limit goes on when it is requeued, so this warns only."""
    by_name = {stage.name: stage for stage in stages}
    for each in estimate.estimate(stages, stages, config, estimate.gpu_of(config, stages)):
        if each.gpu_hours is None:
            continue
        stage = by_name[each.stage]
        hours = each.gpu_hours / each.num_gpus / len(stage.tasks)
        limit = sbatch.time_limit(config, stage)
        times = int(hours * 3600 / parse_limit(limit, "time"))
        if times:
            enough = (
                "" if times <= config.max_requeues else f", and cluster.max_requeues={config.max_requeues} is less"
            )
            found.warnings.append(
                f"stages.{stage.name}: about {hours:.0f} h are estimated{' per task' * (len(stage.tasks) > 1)}, and the "
                f"time limit is {limit}: it will be requeued about {times} time(s){enough}"
            )


def _look_at_site(found: Findings, config: Config, stages: list[PlannedStage]) -> list[PlannedStage] | None:
    """The stages that keep within the partition's limits; None where there is no Slurm or partition to ask more of."""
    if shutil.which("sbatch") is None:
        found.failures.append(
            "cluster.executor=slurm, but there is no sbatch on PATH. Two ways on: launch from the cluster's login "
            "node, or cluster=local +scale=tiny to run the same recipe here on the CPU."
        )
        return None
    site = found.attempt(slurm_site.partitions)
    if site is None:
        return None
    named = config.extra_sbatch.get("partition", config.partition)
    names = named.split(",") if named else [each.name for each in site.values() if each.is_default]
    unknown = [name for name in names if name not in site]
    if unknown and site:
        found.failures.append(f"cluster.partition={', '.join(unknown)}: unknown; there are: {', '.join(sorted(site))}")
        return None
    chosen = [site[name] for name in names if name in site]
    for each in chosen:
        if each.state != "UP":
            found.warnings.append(f"partition {each.name} is {each.state}: jobs will wait (cluster.partition)")
    return [stage for stage in stages if _look_at_limits(found, config, stage, chosen)]


def _look_at_limits(
    found: Findings, config: Config, stage: PlannedStage, partitions: list[slurm_site.Partition]
) -> bool:
    """Whether the stage keeps within them; a job runs in whichever of its partitions takes it."""
    before = len(found.failures)
    text = sbatch.time_limit(config, stage)
    limits = [each.max_time_s for each in partitions if each.max_time_s is not None]
    names = ", ".join(each.name for each in partitions)
    if limits and len(limits) == len(partitions) and parse_limit(text, "time") > max(limits):
        most = show_limit(max(limits))
        found.failures.append(
            f"stages.{stage.name}.resources.time={text}, and partition {names} allows {most}: set "
            f"cluster.max_time='{most}' (training and generation save and go on), or that key"
        )
    nodes = [each.max_nodes for each in partitions if each.max_nodes is not None]
    if nodes and len(nodes) == len(partitions) and stage.resources.nodes > max(nodes):
        found.failures.append(
            f"stages.{stage.name}.resources.nodes={stage.resources.nodes}, and a job in partition {names} gets "
            f"{max(nodes)} at most: set cluster.partition or that key"
        )
    return len(found.failures) == before


def _look_at_queue(found: Findings, stages: list[PlannedStage]) -> None:
    """Two jobs must not write one folder: neither those of an earlier launch, nor what a person submitted."""
    alive = found.attempt(slurm_site.not_ended) or {}
    records = slurm_site.recorded_jobs(stages[0].folder.parent)
    for stage in stages:
        record = records.get(stage.name, {})
        jobs = record.get("jobs") or [record["job"]] if record else []
        script = str(stage.folder / "submit.sh")
        left = [job for job in jobs if job in alive]
        left += [job for job, ran in alive.items() if ran.split(" ")[0] == script and job not in jobs]
        if left:
            way_on = f"Wait for it, or: scancel {' '.join(left)}"
            found.failures.append(f"stage {stage.name} is job {', '.join(left)}, which has not ended. {way_on}")


def _look_at_jobs(found: Findings, stages: list[PlannedStage], scripts: dict[str, str]) -> None:
    """Ask Slurm whether it would take jobs like these: once for all that differ in nothing it decides by."""
    settings = found.attempt(slurm_site.settings)
    if settings is None:
        return
    preflight.look_at_clock(found, settings.clock_s, "the Slurm controller's")
    alike: dict[tuple[str, ...], list[PlannedStage]] = {}
    for stage in stages:
        options = [line for line in scripts[stage.name].splitlines() if line.startswith("#SBATCH ")]
        key = tuple(line for line in options if not line.startswith(NOT_DECIDING))
        alike.setdefault(key, []).append(stage)
    for asked, group in alike.items():
        largest = max(group, key=lambda each: len(each.tasks))
        array = job_arrays.split(list(range(len(largest.tasks))), settings.max_array_size)[0].elements
        argv = ["sbatch", "--test-only", *([f"--array={array}"] if len(largest.tasks) > 1 else [])]
        try:
            client(argv, text=scripts[largest.name])
        except ValueError as error:
            found.failures.append(_refusal(group, str(error), asked))


def _refusal(stages: list[PlannedStage], said: str, asked: Iterable[str]) -> str:
    keys = [key for word, key in WHERE_REFUSED.items() if word in said.lower()]
    words = [line.removeprefix("#SBATCH --") for line in asked]
    what = ", ".join(word for word in words if word.startswith(SIZES))
    change = " or ".join(keys) or f"what it asks for: {what} (the stage's resources, or cluster.*)"
    names = ", ".join(f"stages.{stage.name}" for stage in stages)
    return f"{names}: Slurm refuses such a job ({said}); look at {change}"
