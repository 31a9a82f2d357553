"""One machine with enroot and no Slurm: every rank of every process runs in a root file system made once per image.

    enroot create --name recipe-nemo-1f2e3d4c5b6a /shared/images/nemo.sqsh       the first time
    enroot start --rw --mount ... --env ... recipe-nemo-1f2e3d4c5b6a python -m recipes.run_stage ...

Images are .sqsh files (containers/build.py writes them). The checkout (read-only) and the run folder are mounted where they
are, the home folder is not, and the image's own entrypoint is left out. `enroot start` becomes the command it starts, so
signals, exit codes and memory are those of a plain child.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launchers.here import containers, one_machine
from launchers.here.containers import Contained, mounts_of, program_of, variables
from launchers.here.display import Display
from launchers.here.processes import ROOT, Command, Place, Runtime
from launchers.planning import images
from launchers.planning.images import Image
from launchers.planning.mounts import Mount
from launchers.planning.plan import PlannedStage, Task
from recipes.stage import Process

RC = ROOT / "launchers" / "enroot_rc.sh"
LOCKS = Path("~/.cache/megatron-recipes")
COMPLETE = "/.recipe-complete"
CLIENT_TIMEOUT_S = 60
CREATE_TIMEOUT_S = 3600  # an image of 25 GB from a busy file system


@dataclass(kw_only=True)
class Config(Contained):
    executor: str = "enroot"


def command(config: Config, stage: PlannedStage, process: Process, place: Place, container: str) -> list[str]:
    """The argv of `enroot start` for one rank of a process. Pure. A secret is in it by name only.

    Raises:
        ValueError: a mount or a variable that enroot's options cannot hold.
    """
    words = ["enroot", "start", "--rw", "--rc", str(RC)]
    words += [word for mount in mounts_of(config, stage) for word in ("--mount", _mount(mount))]
    env = variables(config, stage, process, place) | {"STEP_FOLDER": str(ROOT)}
    env |= {
        "NVIDIA_VISIBLE_DEVICES": "all" if place.devices else "void",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }
    if place.devices:  # the hook shows all of them, so these are the machine's numbers
        env["CUDA_VISIBLE_DEVICES"] = ",".join(place.devices)
    for key, value in env.items():
        if "\n" in value:
            raise ValueError(f"cluster.env.{key} has a line break, which enroot does not take")
        words += ["--env", f"{key}={value}"]
    words += [word for key in config.env_from for word in ("--env", key)]
    return [*words, *config.extra_args, container, *program_of(config, process)]


def _mount(mount: Mount) -> str:
    if re.search(r"[\s:]", mount.source + mount.target):
        raise ValueError(
            f"{mount.source!r}: enroot mounts no path with a space or colon; use another run_dir= or mount"
        )
    return f"{mount.source}:{mount.target}:none:{','.join(['x-create=auto', 'rbind', *mount.flags])}"


def container_name(image: Image) -> str:
    """Another for every content of the image's file, as far as its size and time of writing tell."""
    assert image.sqsh is not None, "check has refused what is not a file"
    stat = Path(image.sqsh).stat()
    identity = f"{Path(image.sqsh).resolve()} {stat.st_size} {stat.st_mtime_ns}"
    return f"recipe-{image.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def check(config: Config, stages: list[PlannedStage]) -> None:
    """Show what may go wrong, and refuse what would.

    Raises:
        ValueError: these stages cannot run in enroot here; every reason at once.
    """
    if shutil.which("enroot") is None:
        raise ValueError(
            "cluster.executor=enroot, but there is no enroot on PATH; install it, or cluster=docker or local"
        )
    enroot("version")
    found = containers.look(config, stages)
    by_image = {stage.resources.image: stage for stage in stages}
    found.failures += [problem for stage in by_image.values() if (problem := _image_problem(config, stage))]
    if not found.failures:
        for stage in by_image.values():
            found.attempt(partial(command, config, stage, Process("main", ["python"]), Place(), "any"))
    found.show(Display())
    found.refuse()


def _image_problem(config: Config, stage: PlannedStage) -> str | None:
    try:
        image = images.of_stage(stage, config.images)
    except ValueError as error:
        return str(error)
    if image.sqsh is None:
        return (
            f"stages.{stage.name}: enroot starts .sqsh files, and image {image.name} is {image.reference}. Once: enroot "
            f"import --output {image.name}.sqsh docker://{images.enroot_reference(image)}; then "
            f"++cluster.images.{image.name}=<that file>"
        )
    if not Path(image.sqsh).is_file():
        return f"stages.{stage.name}: there is no file {image.sqsh} (++cluster.images.{image.name}=<file>.sqsh)"
    return None


def submit(config: Config, stages: list[PlannedStage], display: Display) -> None:
    """Make the root file systems that are not there yet, then run the stages in order.

    Raises:
        TaskFailed: the first task that failed, with its last words; what it had done is kept for the rerun.
        ValueError: enroot cannot make one.
    """
    containers = {}
    for name in dict.fromkeys(stage.resources.image for stage in stages):
        image = images.resolve(name, config.images)
        containers[name] = container_name(image)
        prepare(image, containers[name], display)
    one_machine.run(config, stages, display, RootFilesystems(config, containers))


def prepare(image: Image, container: str, display: Display) -> None:
    """Unpack the image as `container`, unless that has been done; one that was cut off is made anew."""
    with _lock(container):
        if container in enroot("list").split():
            probe = ["enroot", "start", "--rc", str(RC), container, "test", "-e", COMPLETE]
            if _run(probe, CLIENT_TIMEOUT_S).returncode == 0:
                return
            enroot("remove", "--force", container)
        display.line(f"unpacks image {image.name} once: {image.sqsh} as enroot container {container}")
        enroot("create", "--name", container, str(image.sqsh), timeout_s=CREATE_TIMEOUT_S)
        enroot("start", "--rw", "--rc", str(RC), container, "touch", COMPLETE)


@contextmanager
def _lock(container: str) -> Iterator[None]:
    folder = LOCKS.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{container}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class RootFilesystems(Runtime):
    shows_commands = True
    config: Config
    containers: dict[str, str]
    """Image name -> the container made of it."""

    def command(self, stage: PlannedStage, task: Task, process: Process, place: Place) -> Command:
        argv = command(self.config, stage, process, place, self.containers[stage.resources.image])
        return Command(argv, _environment())

    def clear(self, task: Task) -> None:
        """Nothing outlives the processes that were started."""


def _environment() -> dict[str, str]:
    """enroot's own: what is for the container stands in its options."""
    env = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    return env | {"ENROOT_MOUNT_HOME": "n"}


def enroot(*words: str, timeout_s: float = CLIENT_TIMEOUT_S) -> str:
    """What enroot prints.

    Raises:
        ValueError: it failed, or did not answer in time.
    """
    done = _run(["enroot", *words], timeout_s)
    if done.returncode:
        said = " ".join(done.stderr.split()[-40:]) or f"exit code {done.returncode}"
        raise ValueError(f"enroot {words[0]}: {said}")
    return done.stdout


def _run(argv: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, cwd=ROOT, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer in {timeout_s:g} s")
