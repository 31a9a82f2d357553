"""Find what would fail before anything is submitted: everything at once, each with the key to change.

A failure refuses the run; a warning is shown and the run goes on. Here is what holds for every kind of cluster: the
run folder, mounts, models, data, disk. launchers/slurm/preflight.py asks Slurm.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

from launchers.estimates.estimate_training import short_bytes
from launchers.here.display import Display
from launchers.planning import config_paths
from launchers.planning.mounts import Mount
from launchers.planning.plan import PlannedStage, Task
from nemo_ext.megatron.plan.memory import checkpoint_bytes, checkpoints_on_disk
from nemo_ext.models.published_shapes import shape_of
from recipes.field_marks import Marks
from recipes.work import Asking, Training

LOCAL_TYPES = ("tmpfs", "ramfs", "devtmpfs", "squashfs")
SHARED_TYPES = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse",
    "weka",
    "wekafs",
    "panfs",
    "cifs",
    "smb",
    "9p",
    "virtiofs",
)
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|(API|ACCESS|SECRET|PRIVATE)_?KEY)$", re.IGNORECASE)
SECRET_CHARACTERS = 8
"""A shorter value is a switch, such as HF_HUB_DISABLE_IMPLICIT_TOKEN=1."""
CLOCK_S = 10.0
SPARE = 1.2
"""Free space wanted, as a multiple of what the checkpoints take."""
DATA_WAY_ON = "set DATA_DIR or that key (data=, input= or second=, where it comes from one)"


class Refused(ValueError):
    """What keeps a run from being submitted: one line per reason."""


@dataclass
class Findings:
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attempt(self, check: Callable[[], Any]) -> Any:
        """What `check` returns; None, and a failure more, when it raises a ValueError."""
        try:
            return check()
        except ValueError as error:
            self.failures.append(str(error))
            return None

    def show(self, display: Display) -> None:
        for warning in self.warnings:
            display.line(f"warning: {warning}", style="yellow")

    def refuse(self) -> None:
        """Raises Refused when there are failures."""
        failures = list(dict.fromkeys(self.failures))
        if len(failures) == 1:
            raise Refused(failures[0])
        if failures:
            numbered = "\n".join(f"  {number}. {text}" for number, text in enumerate(failures, start=1))
            raise Refused(f"{len(failures)} things to change, and nothing was submitted:\n{numbered}")


def look_at_secrets(found: Findings, names: list[str], env: Mapping[str, str], key: str = "cluster.env") -> None:
    """Whether the variables of cluster.env_from are set here, and `env`, which is written down, has none that is secret."""
    unset = [name for name in names if name not in os.environ]
    if unset:
        found.failures.append(f"cluster.env_from names {', '.join(unset)}, not set here; export it, or remove it")
    for name, value in env.items():
        if SECRET_NAME.search(name) and len(value) >= SECRET_CHARACTERS and not value.startswith(("/", "~", "$")):
            found.failures.append(
                f"{key}.{name} looks like a secret, and would be written into scripts and logs; export {name} where you "
                f"launch, and name it in cluster.env_from instead: [{name}]"
            )


def look_at_folder(found: Findings, folder: Path, way_on: str) -> None:
    """Whether files can be written there (or in the nearest folder above that exists), and other machines see them."""
    place = existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            began = time.time()
            probe.write(b"1")
            probe.flush()
            os.fsync(probe.fileno())
            ahead_s = clock_ahead(os.fstat(probe.fileno()).st_mtime, began)
            look_at_clock(found, ahead_s, f"that of {place}'s file server")
    except OSError as error:
        found.failures.append(f"{folder} cannot be written: {error.strerror}; {way_on}")
    kind = file_system(place)
    if kind in LOCAL_TYPES or (Path("/tmp") in [place, *place.parents] and not _is_shared(kind)):  # noqa: S108 - named
        found.failures.append(
            f"{folder} is on {kind}, which only this machine has, and the nodes must see it: {way_on}; if they do, "
            "cluster.check_paths=false"
        )
    elif not _is_shared(kind):
        found.warnings.append(
            f"{folder} is on {kind}, most often a disk of one machine; the nodes must see it ({way_on})"
        )


def clock_ahead(theirs: float, asked: float) -> float:
    """Seconds by which a clock that was asked at `asked` by ours, and has just answered `theirs`, is ahead at least:
    a slow answer is not a difference."""
    return theirs - min(max(theirs, asked), time.time())


def look_at_clock(found: Findings, ahead_s: float | None, whose: str) -> None:
    """Heartbeats are read by the nodes' clocks; Slurm's own messages are refused when 5 minutes lie between two."""
    if ahead_s is not None and abs(ahead_s) > CLOCK_S:
        way = "ahead of" if ahead_s > 0 else "behind"
        found.warnings.append(
            f"this machine's clock and {whose} differ: that is {abs(ahead_s):.0f} s {way} this; set both by NTP, or what "
            "runs may look as if it hung"
        )


def look_at_paths(found: Findings, stages: list[PlannedStage], mounts: list[Mount] | None) -> None:
    """Whether the models and data that no stage of the run makes are here; `mounts`: those of the container, or None."""
    users: dict[str, list[tuple[str, Marks]]] = {}
    for stage in stages:
        for key, path, marks in stage_paths(stage):
            users.setdefault(path, []).append((f"stages.{stage.name}.{key}", marks))
    for path, keys in users.items():
        first, marks = keys[0]
        who = first if len(keys) == 1 else f"{first} and {len(keys) - 1} more"
        way_on = "set HF_MODELS or that key" if marks.get("model") else DATA_WAY_ON
        here = path if mounts is None else source_of(path, mounts)
        if here is None:
            folder = str(Path(path).parent)
            text = f"{who}: {path} is in no mount, so the container has not got it"
            if _is_there(path):
                found.failures.append(f"{text}; add {folder}:{folder} to cluster.mounts")
            else:
                found.warnings.append(f"{text}, unless the image holds it; it is not here either (cluster.mounts)")
        elif not _is_there(here) and not (marks.get("or_folder") and Path(here).parent.is_dir()):
            mounted = f" (mounted from {here})" if here != path else ""
            found.failures.append(f"{who}: there is no {path}{mounted}; {way_on}")


def paths_not_here(stages: list[PlannedStage], cluster: Any) -> Findings:
    """Warnings of what a launch would refuse, for a dry run: that is useful before the data are here. Of nodes that see
    other folders than this machine (cluster.ssh, cluster.check_paths=false) nothing is said."""
    found = Findings()
    if not getattr(cluster, "ssh", None) and getattr(cluster, "check_paths", True):
        mounts = [Mount.parse(text) for text in getattr(cluster, "mounts", [])]
        look_at_paths(found, stages, [Mount("/", "/"), *mounts])
    return Findings(warnings=[*found.failures, *found.warnings])


def look_at_disk(found: Findings, stages: list[PlannedStage]) -> None:
    """Whether the run folder has room for the checkpoints, where the model's size is known."""
    needed = 0
    for stage in stages:
        for config in (task.work.config for task in stage.differing_tasks if isinstance(task.work, Training)):
            shape = shape_of(config.model.hf_path)
            needed += checkpoints_on_disk(config) * checkpoint_bytes(shape, config) if shape else 0
    if needed:
        run_dir = stages[0].folder.parent
        free = shutil.disk_usage(existing(run_dir)).free
        if free < SPARE * needed:
            found.warnings.append(
                f"{run_dir} has {short_bytes(free)} free, and the checkpoints take {short_bytes(needed)}: free some, set "
                "RUNS_DIR, or keep fewer (stages.<name>.keep_checkpoints, keep_interval)"
            )


def stage_paths(stage: PlannedStage) -> Iterator[tuple[str, str, Marks]]:
    """(dotted key, absolute path, marks of its field) of what the stage reads from outside its run. A model that it does
    not read here, such as that of an external server, is left out, and so is what it waits for."""
    run_dir = stage.folder.parent
    seen = set()
    for task in stage.differing_tasks:
        for key, path, marks in config_paths.absolute_paths(task.content, task.schema):
            if (key == "model.hf_path" and not _reads_model(task)) or key in _waited_for(task):
                continue
            if run_dir not in Path(path).parents and path != str(run_dir) and path not in seen:
                seen.add(path)
                yield key, path, marks


def _waited_for(task: Task) -> set[str]:
    waits = getattr(task.module, "waits_for", None)
    return set(waits(task.typed())) if waits else set()


def _reads_model(task: Task) -> bool:
    if hasattr(task.module, "reads_model"):
        return bool(task.module.reads_model(task.typed()))
    return not isinstance(task.work, Asking) or any(process.name.startswith("server-") for process in task.processes)


def source_of(path: str, mounts: list[Mount]) -> str | None:
    """Where a path of the container is on this side; None when nothing is mounted there."""
    for mount in sorted(mounts, key=lambda each: len(each.target), reverse=True):
        if Path(mount.target) in [Path(path), *Path(path).parents]:
            return str(mount.source / Path(path).relative_to(mount.target))
    return None


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that there is."""
    return next(place for place in [folder, *folder.parents] if place.exists())


def file_system(place: Path) -> str:
    """The type of the file system at `place`, as mount names it: `nfs4`, `lustre`, `ext4`, `tmpfs`."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, mounted = line.split(" ")[:3]
        target = target.replace("\\040", " ")
        if os.path.commonpath([target, place.resolve()]) == target and len(target) >= len(best):
            best, kind = target, mounted
    return kind


def _is_shared(kind: str) -> bool:
    return kind.startswith(SHARED_TYPES)


def _is_there(path: str) -> bool:
    return Path(path).exists() or (any(sign in path for sign in "*?[") and bool(glob(path)))
