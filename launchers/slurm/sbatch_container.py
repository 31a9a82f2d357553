"""Commands that put a job's step into its image: options of srun (pyxis), or a program before its command (enroot).

pyxis   srun --container-image=... --container-mounts=...  python -m recipes.run_stage ...
enroot  srun enroot start --rw --mount ... image.sqsh      python -m recipes.run_stage ...
none    srun python -m recipes.run_stage ...               on the node itself
"""

import os
import re
from pathlib import Path

from launchers.planning import images
from launchers.planning.mounts import Mount
from launchers.planning.plan import PlannedStage
from launchers.slurm.config import Config

ROOT = Path(__file__).resolve().parents[2]
ENROOT_CONF = ROOT / "launchers" / "enroot.conf.sh"
ENROOT_RC = ROOT / "launchers" / "enroot_rc.sh"
MODES = ("none", "pyxis", "enroot")


def step_options(config: Config, stage: PlannedStage) -> list[str]:
    """srun's options for the container: pyxis', or none."""
    if config.container != "pyxis":
        return []
    mounts = [
        ":".join([each.source, each.target, *(["+".join(each.flags)] if each.flags else [])])
        for each in mounts_of(config, stage)
    ]
    options = [
        f"--container-image={images.enroot_reference(images.of_stage(stage, config.images))}",
        f"--container-mounts={','.join(mounts)}",
        f"--container-workdir={ROOT}",
        "--no-container-mount-home",
    ]
    # without it the image's own value of such a variable wins
    return [*options, f"--container-env={','.join(_handed_over(config, stage))}"]


def command_prefix(config: Config, stage: PlannedStage) -> list[str]:
    """What stands before a step's command: `enroot start ... image`, or nothing.

    Raises:
        ValueError: the image is not a file, or a path that enroot cannot mount.
    """
    if config.container != "enroot":
        return []
    image = images.of_stage(stage, config.images)
    if image.sqsh is None:
        raise ValueError(
            f"stages.{stage.name}: cluster.container=enroot starts .sqsh files, and image {image.name} is "
            f"{image.reference}. Import it once (enroot import -o {image.name}.sqsh docker://"
            f"{images.enroot_reference(image)}) and set ++cluster.images.{image.name}=<that file>"
        )
    words = ["enroot", "start", "--rw", "--rc", str(ENROOT_RC), "--conf", str(ENROOT_CONF)]
    for mount in mounts_of(config, stage):
        if re.search(r"\s", mount.source + mount.target):
            raise ValueError(
                f"{mount.source!r}: enroot mounts no path with a space in it; use another run_dir= or mount"
            )
        options = ",".join(["x-create=auto", "rbind", *mount.flags])
        words += ["--mount", f"{mount.source}:{mount.target}:none:{options}"]
    for name in _handed_over(config, stage):
        words += ["--env", name]
    return [*words, image.sqsh]


def variables(config: Config, stage: PlannedStage) -> dict[str, str]:
    """What is set for every process, without the secrets; in a container also what describes its image."""
    if config.container == "none":
        # a tree that came over ssh is not a git checkout: its sender says which commit it is
        version = os.environ.get("RECIPE_CODE_VERSION")
        return config.env | ({"RECIPE_CODE_VERSION": version} if version else {})
    return config.env | images.environment(images.of_stage(stage, config.images), config.check_versions)


def _handed_over(config: Config, stage: PlannedStage) -> list[str]:
    return sorted({*variables(config, stage), *config.env_from})


def mounts_of(config: Config, stage: PlannedStage) -> list[Mount]:
    """The checkout (read-only), the run folder and cluster.mounts.

    Raises:
        ValueError: a mount that is not `source:target[:flags]` of absolute paths.
    """
    run_dir = str(stage.folder.parent)
    return [Mount(str(ROOT), str(ROOT), ("ro",)), Mount(run_dir, run_dir), *map(Mount.parse, config.mounts)]
