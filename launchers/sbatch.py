"""The batch script of one stage, as text a person can read, edit and submit again by hand. Pure: starts nothing.

A stage with several tasks is one job array; element i works in folder i. Within a job, services are steps in the
background and main is the step the job waits for. The values are written here; launchers/sbatch.sh acts on them.
"""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from launchers.plan import PlannedStage, Task
from nemo_ext.files import sha256_json
from nemo_ext.serving import server as servers
from recipes.stage import Process

if TYPE_CHECKING:
    from launchers.executors.slurm import Config

ROOT = Path(__file__).resolve().parent.parent
BODY = ROOT / "launchers" / "sbatch.sh"
IMAGES = ROOT / "containers" / "images.yaml"
EXPORTED = ["PATH", "HOME", "USER"]
SIGNAL_BEFORE_END_S = 120
WAIT_FOR_RANKS_S = 30


def script(config: "Config", stage: PlannedStage) -> str:
    """The text for sbatch.

    Raises:
        ValueError: a value that Slurm or bash would read as something else, or ranks that do not fill their nodes.
    """
    lines = ["#!/bin/bash", *_directives(config, stage), ""]
    lines += [f"# Written by launchers/executors/slurm.py. By hand: sbatch {_path(stage.folder)}/submit.sh"]
    lines += [*config.setup, "set -uo pipefail", f"max_requeues={config.max_requeues}"]
    lines += [f"export {_name(key)}={shlex.quote(value)}" for key, value in sorted(config.env.items())]
    lines += ["folders=(", *(f"  {_path(task.folder)}" for task in stage.tasks), ")", _step(config, stage)]
    lines += ["", "start_task() {", *_processes(config, stage), "}", ""]
    return "\n".join(lines) + BODY.read_text()


def array(indices: list[int]) -> str:
    """`0-2,5` for [0, 1, 2, 5]."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _directives(config: "Config", stage: PlannedStage) -> list[str]:
    needs, folder = stage.resources, stage.folder
    per_node = max(_layout(process, needs.nodes)[1] for task, _ in _kinds(stage) for process in task.processes)
    options: dict[str, str | None] = {
        "job-name": f"{folder.parent.name}/{stage.name}",
        "account": config.account,
        "partition": config.partition,
        "qos": config.qos,
        "nodes": str(needs.nodes),
        "ntasks-per-node": str(per_node),
        "gpus-per-node": str(needs.gpus) if needs.gpus else None,
        "time": needs.time,
        "signal": f"B:USR1@{SIGNAL_BEFORE_END_S}",
        "requeue": "",
        "open-mode": "append",
        "export": ",".join([*EXPORTED, *map(_name, config.env_from)]),
        "chdir": str(ROOT),
        "output": f"{_plain(folder)}/logs/slurm-%j.log",
    }
    if len(stage.tasks) > 1:
        options["array"] = f"{array(list(range(len(stage.tasks))))}%{config.max_parallel_tasks}"
        options["output"] = f"{_plain(folder)}/logs/slurm-%A_%a.log"
    options |= config.extra_sbatch
    return [_directive(key, value) for key, value in options.items() if value is not None]


def _directive(key: str, value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z-]*", key) or not value.isprintable():
        raise ValueError(f"sbatch option {key!r}={value!r}: it must be an option's long name and one line of text")
    return f"#SBATCH --{key}={shlex.quote(value)}" if value else f"#SBATCH --{key}"


def _name(key: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        raise ValueError(f"cluster.env or env_from has {key!r}, which is no name of an environment variable")
    return key


def _plain(folder: Path) -> str:
    if not str(folder).isprintable() or re.search(r"[%\\,:]", str(folder)):
        raise ValueError(f"{str(folder)!r}: Slurm gives % \\ , and : a meaning in paths; use another run_dir=")
    return str(folder)


def _path(folder: Path) -> str:
    return shlex.quote(_plain(folder))


def _step(config: "Config", stage: PlannedStage) -> str:
    """The part all steps share, as a bash array. --overlap: services and main share the job's nodes and GPUs."""
    # --export=ALL: what sbatch's --export let in, and what this script sets
    flags = ["--overlap", "--export=ALL", "--input=none", "--open-mode=append", "--cpu-bind=none"]
    if config.container == "pyxis":
        run_dir = _plain(stage.folder.parent)
        mounts = [f"{_plain(ROOT)}:{ROOT}", f"{run_dir}:{run_dir}", *config.mounts]
        flags += [f"--container-image={image(config, stage)}", f"--container-mounts={','.join(mounts)}"]
        flags += [f"--container-workdir={ROOT}"]
    return f"step=(srun {shlex.join(flags[:5])}" + "".join(f"\n  {shlex.quote(flag)}" for flag in flags[5:]) + ")"


def image(config: "Config", stage: PlannedStage) -> str:
    """What enroot calls the stage's image: a .sqsh file, or a reference with # after the registry.

    Raises:
        ValueError: no such name in cluster.images or containers/images.yaml, or that of another kind of server.
    """
    images = {**OmegaConf.to_container(OmegaConf.load(IMAGES)), **config.images}  # type: ignore[dict-item]
    name = stage.resources.image
    if name not in images:
        raise ValueError(f"stages.{stage.name}.resources.image={name!r}; there are: {', '.join(sorted(images))}")
    kind = stage.tasks[0].content.get("server", {}).get("kind", name)
    if (
        kind != name
        and kind in images
        and name in servers.kinds()
        and any(p.service for p in stage.tasks[0].processes)
    ):
        raise ValueError(
            f"stages.{stage.name}.resources.image={name}, and its server is {kind}; use "
            f"stages.{stage.name}.resources.image={kind}"
        )
    registry, slash, rest = images[name].partition("/")
    return f"{registry}#{rest}" if slash and re.search(r"[.:]", registry) else images[name]


def _kinds(stage: PlannedStage) -> list[tuple[Task, list[int]]]:
    """One task of each kind, and the indices of that kind. Shards are one kind: they differ in their rows only."""
    kinds: dict[str, list[int]] = {}
    for index, task in enumerate(stage.tasks):
        content = {key: value for key, value in task.content.items() if key not in ("output_dir", "shard")}
        kinds.setdefault(sha256_json(content), []).append(index)
    return [(stage.tasks[indices[0]], indices) for indices in kinds.values()]


def _processes(config: "Config", stage: PlannedStage) -> list[str]:
    """The lines that start a task; a `case` on the array's index where its tasks differ in more than their folder."""
    texts: dict[str, list[int]] = {}
    for task, indices in _kinds(stage):
        texts.setdefault("\n".join(_task(config, task, stage.resources.nodes)), []).extend(indices)
    if len(texts) == 1:
        return list(texts)
    arms = [f"  {'|'.join(map(str, sorted(indices)))})\n{text}\n  ;;" for text, indices in texts.items()]
    return ['  case "$SLURM_ARRAY_TASK_ID" in', *arms, "  esac"]


def _task(config: "Config", task: Task, nodes: int) -> list[str]:
    processes = task.processes
    services = [process for process in processes if process.service]
    lines = [f"  rm -f -- {_word(p.ready_file, task)}" for p in services if p.ready_file]
    lines += [_service(config, process, task, nodes) for process in services]
    for process in processes:
        if not process.service:
            used, _ = _layout(process, nodes)
            log = f"{process.name}-%t" if process.ranks > 1 else process.name
            argv = ["python", "-m", "recipes.rank_env", "--", *process.argv]
            where = ' --nodelist="${hosts[0]}"' if used == 1 and nodes > 1 else ""
            sizes = f"{_sizes(process, nodes)} --kill-on-bad-exit=1{where}"
            lines += [f'  "${{step[@]}}" {sizes} --output="$folder/logs/"{shlex.quote(log)}.log \\']
            lines += [f"    {_command(config, argv, task)} &", "  main=$!"]
    return lines


def _service(config: "Config", process: Process, task: Task, nodes: int) -> str:
    flags = _sizes(process, nodes)
    if process.ranks > 1:
        # when one rank ends, well or badly, so does the step
        flags += f" --kill-on-bad-exit=1 --wait={WAIT_FOR_RANKS_S} --label"
    if process.mpi:
        flags += f" --mpi={shlex.quote(process.mpi)}"
    place = f"{process.first_node} {process.nodes}"
    return f"  service {shlex.quote(process.name)} {place} {flags} \\\n    {_command(config, process.argv, task)}"


def _sizes(process: Process, nodes: int) -> str:
    used, per_node = _layout(process, nodes)
    return f"--nodes={used} --ntasks={process.ranks} --ntasks-per-node={per_node}"


def _layout(process: Process, nodes: int) -> tuple[int, int]:
    """Nodes the process uses and its ranks on each."""
    used = process.nodes if process.service else min(nodes, process.ranks)
    if process.service and process.first_node + process.nodes > nodes:
        last = process.first_node + process.nodes
        raise ValueError(f"{process.name} needs {last} nodes, and the stage has resources.nodes={nodes}")
    if process.ranks % used:
        raise ValueError(f"{process.name}: {process.ranks} ranks do not spread evenly over {nodes} nodes")
    return used, process.ranks // used


def _command(config: "Config", argv: list[str], task: Task) -> str:
    return " ".join(_word(config.python if word == "python" else word, task) for word in argv)


def _word(word: str, task: Task) -> str:
    """Quoted for bash, with the task's folder as `$folder`: that lets the tasks of an array share their lines."""
    if str(task.folder) not in word:
        return shlex.quote(word)
    return '"$folder"'.join(shlex.quote(part) if part else "" for part in word.split(str(task.folder)))
