"""Slurm's client programs, none of which may hang a launcher: with the controller down they wait for minutes.

What a shell has set for them is left out: SBATCH_TIMELIMIT and its like win over the script's own lines, so that a job
would have another partition, memory or array than submit.sh says, and SQUEUE_FORMAT changes what is read here.
"""

import os
import subprocess

CLIENT_TIMEOUT_S = 60
SHELL_DEFAULTS = (
    "SBATCH_",
    "SALLOC_",
    "SRUN_",
    "SLURM_TIME_FORMAT",
    "SQUEUE_",
    "SACCT_",
    "SINFO_",
    "SCANCEL_",
    "SCONTROL_",
)
NO_CONFIGURATION = "Could not establish a configuration source"


def client(argv: list[str], timeout_s: float | None = None, text: str = "") -> str:
    """Run one client, `text` on its stdin, and return its stdout.

    Raises:
        ValueError: it is not on PATH, failed, or did not answer in `timeout_s` (None: CLIENT_TIMEOUT_S).
    """
    limit = timeout_s or CLIENT_TIMEOUT_S
    env = {name: value for name, value in os.environ.items() if not name.startswith(SHELL_DEFAULTS)}
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=limit, check=False, env=env)
    except FileNotFoundError:
        raise ValueError(f"there is no {argv[0]} on PATH. Is this the cluster's login node?") from None
    except subprocess.TimeoutExpired:
        unsure = ". Look with squeue --me before launching again" if argv[0] == "sbatch" else ""
        raise ValueError(f"{argv[0]} did not answer in {limit:g} s{unsure}") from None
    if NO_CONFIGURATION in done.stderr:
        raise ValueError(
            f"{argv[0]} finds no slurm.conf. Is this the cluster's login node? SLURM_CONF may name the file"
        )
    if done.returncode != 0:
        raise ValueError(f"{' '.join(argv[:2])}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout
