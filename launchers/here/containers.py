"""One machine that runs stages in containers: what docker and enroot have in common."""

from dataclasses import dataclass, field

from launchers.here import one_machine
from launchers.here.one_machine import Machine
from launchers.here.processes import ROOT, Place, rank_variables, tuning
from launchers.planning import images, preflight
from launchers.planning.mounts import Mount, check_mounts
from launchers.planning.plan import PlannedStage
from launchers.planning.preflight import Findings
from recipes.stage import Process


@dataclass(kw_only=True)
class Contained(Machine):
    images: dict[str, str] = field(default_factory=dict)
    """Image name -> reference or .sqsh file, where it differs from containers/images.yaml."""
    check_versions: bool = True
    """Refuse an image with other versions inside than containers/images.yaml says."""
    python: str = "python"
    """The interpreter in the images."""
    mounts: list[str] = field(default_factory=list)
    """`source:target[:ro]`; the run folder and this checkout, read-only, are always mounted where they are."""
    env_from: list[str] = field(default_factory=list)
    """Names of variables (tokens, say) that containers get from the launching shell; their values are written nowhere."""
    extra_args: list[str] = field(default_factory=list)
    """More options of the program that starts a container."""


def mounts_of(config: Contained, stage: PlannedStage) -> list[Mount]:
    """The checkout, the run folder and cluster.mounts.

    Raises:
        ValueError: an entry of cluster.mounts is not a mount.
    """
    run_dir = str(stage.folder.parent)
    return [Mount(str(ROOT), str(ROOT), ("ro",)), Mount(run_dir, run_dir), *map(Mount.parse, config.mounts)]


def program_of(config: Contained, process: Process) -> list[str]:
    return [config.python, *process.argv[1:]] if process.argv[0] == "python" else process.argv


def variables(config: Contained, stage: PlannedStage, process: Process, place: Place) -> dict[str, str]:
    """What is set in every container, without the secrets."""
    env = {"HOME": "/tmp", "USER": "recipe", **config.env}  # noqa: S108 - the user need not exist in the image
    env |= tuning(env, place.devices) | rank_variables(process, place)
    return env | images.environment(images.of_stage(stage, config.images), config.check_versions)


def look(config: Contained, stages: list[PlannedStage]) -> Findings:
    """What would fail whatever runs the containers.

    Raises:
        ValueError: a stage needs more than one machine, or more GPUs than there are.
    """
    one_machine.check_size(config, stages)
    found = Findings(failures=check_mounts(config.mounts))
    preflight.look_at_secrets(found, config.env_from, config.env)
    if stages and not found.failures:
        preflight.look_at_paths(found, stages, mounts_of(config, stages[0]))
        preflight.look_at_disk(found, stages)
    return found
