"""Give a Slurm task the names torch.distributed reads, then run it: `python -m recipes.rank_env -- <command ...>`.

Only inside a job step is each task's number known, so the batch script cannot set these itself. The command replaces
this process, so signals and the exit code are its own.
"""

import os
import sys
from collections.abc import Mapping

SLURM_NAMES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


def rank_env(env: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE and LOCAL_RANK of this task.

    Raises:
        ValueError: Slurm's names are not in `env`: this is not a job step.
    """
    missing = [name for name in SLURM_NAMES.values() if name not in env]
    if missing:
        raise ValueError(f"recipes.rank_env: {', '.join(missing)} not set; it runs under srun only")
    return {ours: env[slurm] for ours, slurm in SLURM_NAMES.items()}


def main(argv: list[str]) -> None:
    if len(argv) < 3 or argv[1] != "--":
        raise SystemExit("usage: python -m recipes.rank_env -- <command> [argument ...]")
    os.execvpe(argv[2], argv[2:], {**os.environ, **rank_env(os.environ)})  # noqa: S606 - an argv, and no shell


if __name__ == "__main__":
    main(sys.argv)
