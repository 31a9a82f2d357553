"""A server over several nodes is several tasks of one job step, each of which runs the wrapper (serve.py).

Task 0 chooses the ports and writes them into a file, which the others wait for, so that all run the same command:
    {"step": "4711.0.1", "host": "node1", "port": 20713, "rendezvous_port": 20714}
`step` tells this start from an earlier one in the same folder.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemo_ext.records.files import write_json_atomic

POLL_S = 0.2
NEEDED = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_STEP_ID")


@dataclass(frozen=True)
class Step:
    """This process's place in its job step."""

    task: int
    name: str
    """<job>.<restarts>.<step>"""


ALONE = Step(0, "")


def this_step(num_tasks: int, environ: Mapping[str, str] | None = None) -> Step:
    """The job step of a server of `num_tasks`.

    Raises:
        ValueError: the server has several tasks, and this is not a job step of so many.
    """
    if num_tasks == 1:
        return ALONE
    env = os.environ if environ is None else environ
    missing = [name for name in NEEDED if name not in env]
    if missing:
        raise ValueError(
            f"a server of {num_tasks} tasks is one job step of Slurm, and {', '.join(missing)} is not set here; use a "
            "cluster with executor: slurm, or a server that fits one node"
        )
    if env["SLURM_NTASKS"] != str(num_tasks):
        raise ValueError(f"this job step has {env['SLURM_NTASKS']} tasks, and the server needs {num_tasks}")
    restarts = env.get("SLURM_RESTART_COUNT", "0")
    return Step(int(env["SLURM_PROCID"]), f"{env['SLURM_JOB_ID']}.{restarts}.{env['SLURM_STEP_ID']}")


@dataclass(frozen=True)
class Ports:
    """What task 0 chose."""

    host: str
    port: int
    rendezvous_port: int

    @property
    def rendezvous(self) -> str:
        return f"{self.host}:{self.rendezvous_port}"


def write_ports(path: Path, step: Step, ports: Ports) -> None:
    """Write task 0's choice, after all that the other tasks read."""
    content = {"step": step.name, "host": ports.host, "port": ports.port, "rendezvous_port": ports.rendezvous_port}
    write_json_atomic(path, content)


def read_ports(path: Path, step: Step, timeout_s: float) -> Ports:
    """Wait, as one of the other tasks, for task 0's choice for this step.

    Raises:
        TimeoutError: it did not come.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        content = json.loads(path.read_text()) if path.exists() else {}
        if content.get("step") == step.name:
            return Ports(content["host"], content["port"], content["rendezvous_port"])
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"task {step.task}: no {path} of this step after {timeout_s:g} s: the first task did not start, or this "
                "folder is not on a file system that the nodes share"
            )
        time.sleep(POLL_S)
