"""Run pytest as on a machine without the optional tools: `python -m tests.bare_path <pytest's arguments>`.

PATH becomes a folder of links to everything else that is on it, so that what needs a tool must skip with its reason, and
what can do without must.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest

OPTIONAL = (
    "bwrap", "chromium", "shellcheck", "ssh", "sshd", "rsync", "docker", "dockerd", "enroot", "ip", "munge", "nvidia-smi",
    "sbatch", "srun", "squeue", "scontrol", "scancel", "sacct", "sinfo", "slurm",
)  # fmt: skip
"""Beginnings of their names."""


def link_others(folder: Path, path: str) -> None:
    """Link every program on `path` into `folder`, the first of each name, but for the optional ones."""
    for place in filter(None, path.split(os.pathsep)):
        for program in sorted(Path(place).glob("*")):
            link = folder / program.name
            if not program.name.startswith(OPTIONAL) and not os.path.lexists(link):
                link.symlink_to(program)


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="bare-path-") as folder:
        link_others(Path(folder), os.environ["PATH"])
        os.environ["PATH"] = folder
        return int(pytest.main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
