"""One machine with Docker: every rank of every process is a container of its stage's image.

    docker run --rm --name run-train-main-0-1f2e3d4c ... --entrypoint python <image> -m recipes.run_stage ...

The checkout (read-only) and the run folder are mounted where they are, so that a path means the same inside. The image's
own entrypoint is left out. `docker run` passes SIGTERM on, so Ctrl-C and the launcher's death end the containers; what is
left all the same carries the labels of its run and task and is removed at the next start.
"""

import hashlib
import logging
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from launchers.here import containers, one_machine
from launchers.here.containers import Contained, mounts_of, program_of, variables
from launchers.here.display import Display
from launchers.here.processes import ROOT, Command, Place, Runtime
from launchers.planning import images
from launchers.planning.mounts import Mount
from launchers.planning.plan import PlannedStage, Task
from recipes.stage import Process

CLIENT_TIMEOUT_S = 60
STOP_S = 15
LABEL = "megatron-recipes"
# what the wrapper in every image needs, and whether the daemon takes these options
PROBE = "import sys, omegaconf; assert sys.version_info >= (3, 11), 'Python ' + sys.version.split()[0] + ' is too old'"
HINTS = {
    "rlimit": "the daemon may not raise it; lower cluster.ulimits, or cluster.ulimits=[]",
    "device driver": "install the NVIDIA Container Toolkit, or run where there are GPUs",
    "omegaconf": "build one that has this project's dependencies: python containers/build.py",
}
logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Config(Contained):
    executor: str = "docker"
    user: str | None = None
    """`uid:gid` of the processes; null: those of the launching user, with its groups."""
    network: str = "host"
    """The processes of a task find each other on 127.0.0.1, so each needs the same network."""
    ipc: str = "host"
    """NCCL and data loaders share memory through it."""
    ulimits: list[str] = field(default_factory=lambda: ["memlock=-1", "stack=67108864"])
    """Limits of every container. Rootless daemons and some hosts refuse memlock=-1."""


def command(config: Config, stage: PlannedStage, task: Task, process: Process, place: Place) -> list[str]:
    """The argv of `docker run` for one rank of a process. Pure. A secret is in it by name only.

    Raises:
        ValueError: an image or a mount that cannot be used.
    """
    labels = [f"{LABEL}.run={stage.folder.parent}", f"{LABEL}.task={task.folder}"]
    words = ["docker", "run", "--name", container_name(task, process, place.rank)]
    words += [word for label in labels for word in ("--label", label)]
    options = _options(config, stage, process, place, mounts_of(config, stage))
    return [*words, *options, *_program(config, stage, process)]


def _options(config: Config, stage: PlannedStage, process: Process, place: Place, mounts: list[Mount]) -> list[str]:
    words = ["--rm", "--pull", "never", "--log-driver", "none", "--network", config.network, "--ipc", config.ipc]
    # ranks open each other's GPU memory, for which CUDA wants them in one process namespace
    words += ["--pid", "host"] if process.ranks > 1 else ["--init"]
    words += [word for limit in config.ulimits for word in ("--ulimit", limit)]
    words += _identity(config)
    if place.devices:
        words += ["--gpus", f'"device={",".join(place.devices)}"']  # the quotes are docker's: a comma divides options
    for mount in mounts:
        words += ["--volume", ":".join([mount.source, mount.target, ",".join(mount.flags)]).rstrip(":")]
    env = variables(config, stage, process, place)
    env.pop("CUDA_VISIBLE_DEVICES", None)
    if place.devices:  # the others are not in the container, so these count from 0 there
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(len(place.devices))))
    words += [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
    words += [word for key in config.env_from for word in ("--env", key)]
    return [*words, "--workdir", str(ROOT), *config.extra_args]


def _program(config: Config, stage: PlannedStage, process: Process) -> list[str]:
    first, *rest = program_of(config, process)
    return ["--entrypoint", first, images.docker_reference(images.of_stage(stage, config.images)), *rest]


def _identity(config: Config) -> list[str]:
    if config.user is not None:
        return ["--user", config.user]
    others = sorted(set(os.getgroups()) - {os.getgid()})
    return ["--user", f"{os.getuid()}:{os.getgid()}", *(w for gid in others for w in ("--group-add", str(gid)))]


def container_name(task: Task, process: Process, rank: int) -> str:
    """Readable, and another for every task folder on this machine."""
    folder = str(task.folder)
    words = [task.folder.parts[-2 - bool(task.part)], *task.name.split("/"), process.name]
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join([*words, str(rank)])).lstrip("_.-")
    return f"{plain[-100:].lstrip('_.-')}-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"


def check(config: Config, stages: list[PlannedStage]) -> None:
    """Show what may go wrong, and refuse what would.

    Raises:
        ValueError: these stages cannot run in containers here; every reason at once.
    """
    if shutil.which("docker") is None:
        raise ValueError("cluster.executor=docker, but there is no docker on PATH; install it, or cluster=local")
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except ValueError as error:
        raise ValueError(f"docker cannot be used here: {error}") from error
    found = containers.look(config, stages)
    if any(":" in str(stage.folder) for stage in stages):
        found.failures.append(
            f"{stages[0].folder.parent}: docker mounts no path with a colon in it; use another run_dir="
        )
    kinds = {(stage.resources.image, stage.resources.gpus > 0): stage for stage in stages}
    if not found.failures:  # what a container would need
        found.failures += [problem for stage in kinds.values() if (problem := _probe(config, stage))]
    found.show(Display())
    found.refuse()


def _probe(config: Config, stage: PlannedStage) -> str | None:
    """Why no container of this stage can be started; None when one was."""
    try:
        image = images.of_stage(stage, config.images)
        reference = images.docker_reference(image)
    except ValueError as error:
        return str(error)
    if _run(["image", "inspect", "--format", "{{.Id}}", reference]).returncode:
        return f"stages.{stage.name}: image {reference} is not here; {images.how_to_get(image)}"
    process = Process("probe", ["python", "-c", PROBE])
    place = Place(devices=tuple(one_machine.devices(config)[: stage.resources.gpus]))
    # not the run folder: docker makes what is mounted and not there yet, as root
    mounts = [mount for mount in mounts_of(config, stage) if mount.source != str(stage.folder.parent)]
    tried = _run(["run", *_options(config, stage, process, place, mounts), *_program(config, stage, process)])
    if tried.returncode == 0:
        return None
    lines = [line for line in tried.stderr.splitlines() if line.strip() and "docker run --help" not in line]
    said = lines[-1] if lines else f"exit code {tried.returncode}"
    hint = next((f"; {way}" for mark, way in HINTS.items() if mark in tried.stderr), "")
    return f"stages.{stage.name}: no container of {reference} starts here: {said}{hint}"


def submit(config: Config, stages: list[PlannedStage], display: Display) -> None:
    """Run the stages in order.

    Raises:
        TaskFailed: the first task that failed, with its last words; what it had done is kept for the rerun.
        ValueError: the daemon is gone.
    """
    if stages and (left := _labelled("run", stages[0].folder.parent)):
        display.line(f"removes {len(left)} containers that an earlier launcher left behind")
        docker("stop", "-t", str(STOP_S), *left)
        remove(left)
    one_machine.run(config, stages, display, Containers(config))


class Containers(Runtime):
    shows_commands = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.roots: dict[Path, dict[str, int]] = {}
        """Per task, its containers and the first process of each; 0 where it is not known yet."""

    def command(self, stage: PlannedStage, task: Task, process: Process, place: Place) -> Command:
        argv = command(self.config, stage, task, process, place)
        self.roots.setdefault(task.folder, {})[container_name(task, process, place.rank)] = 0
        return Command(argv, dict(os.environ))

    def pids(self, task: Task, started: list[int]) -> list[int]:
        known = self.roots.get(task.folder, {})
        unknown = [name for name, pid in known.items() if not pid]
        if unknown:
            said = _run(["inspect", "--format", "{{.Name}} {{.State.Pid}}", *unknown]).stdout
            # "/name 4711"; an empty line for one that has not been created yet, 0 for one that has not started
            known |= {name.lstrip("/"): int(pid) for name, pid in re.findall(r"(\S+) (\d+)", said)}
        return [pid for pid in known.values() if pid]

    def clear(self, task: Task) -> None:
        self.roots.pop(task.folder, None)
        try:
            remove(_labelled("task", task.folder))
        except ValueError as error:  # whatever ended the task is what the user is to read
            logger.warning("%s: its containers could not be looked for: %s", task.name, error)


def _labelled(kind: str, folder: Path) -> list[str]:
    return docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}.{kind}={folder}").split()


def remove(containers: list[str]) -> None:
    """Kill and remove them; one that is gone already is fine."""
    if containers:
        _run(["rm", "--force", *containers])


def docker(*words: str) -> str:
    """What the client prints.

    Raises:
        ValueError: it failed, or did not answer in CLIENT_TIMEOUT_S.
    """
    done = _run(list(words))
    if done.returncode:
        raise ValueError(" ".join(done.stderr.split()) or f"docker {words[0]}: exit code {done.returncode}")
    return done.stdout


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"docker {words[0]} did not answer in {CLIENT_TIMEOUT_S} s")
