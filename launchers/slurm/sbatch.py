"""The batch script of one stage, as text a person can read, edit and submit again by hand. Pure: starts nothing.

A stage with several tasks is one job array; element i works in folder i. Within a job, services are steps in the
background and main is the step the job waits for. The values are written here; launchers/slurm/sbatch.sh acts on them.
"""

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers.planning.plan import PlannedStage, Task
from launchers.slurm import job_arrays, sbatch_container
from launchers.slurm.config import Config
from launchers.slurm.time_limit import parse_limit
from recipes.stage import Process

ROOT = Path(__file__).resolve().parents[2]
BODY = ROOT / "launchers" / "slurm" / "sbatch.sh"
EXPORTED = ["PATH", "HOME", "USER"]
ENROOT_FOLDERS = ("RUNTIME", "CACHE", "DATA")
SIGNAL_BEFORE_END_S = 120
WAIT_FOR_RANKS_S = 30


@dataclass(frozen=True)
class Kind:
    """Tasks of a stage that start the same processes."""

    task: Task
    """One of them."""
    processes: list[Process]
    indices: list[int]


def script(config: Config, stage: PlannedStage, max_array_size: int | None = None) -> str:
    """The text for sbatch; tasks beyond `max_array_size` are arrays of their own, submitted with the first one's index.

    Raises:
        ValueError: a value that Slurm or bash would read as something else, or ranks that do not fill their nodes.
    """
    arrays = job_arrays.split(list(range(len(stage.tasks))), max_array_size)
    kinds = _kinds(stage)
    lines = ["#!/bin/bash", *_directives(config, stage, kinds, arrays[0].elements), ""]
    lines += [f"# Written by launchers/executors/slurm.py. By hand: sbatch {_path(stage.folder)}/submit.sh"]
    lines += [
        f"#   sbatch --array={each.elements} {_path(stage.folder)}/submit.sh {each.offset}" for each in arrays[1:]
    ]
    lines += [*config.setup, "set -uo pipefail", f"max_requeues={config.max_requeues}"]
    lines += [f"{kind}_memory_advice={shlex.quote(text)}" for kind, text in _advice(stage).items()]
    set_here = sbatch_container.variables(config, stage)
    lines += [f"export {_name(key)}={shlex.quote(value)}" for key, value in sorted(set_here.items())]
    if not stage.resources.gpus:
        lines += [
            "export CUDA_VISIBLE_DEVICES=''"
        ]  # Slurm may leave a node's GPUs visible to jobs that asked for none
    if config.container == "enroot":
        lines += ["export ENROOT_MOUNT_HOME=n"]
        lines += [f"export ENROOT_{kind}_PATH={_scratch(config)}/{kind.lower()}" for kind in ENROOT_FOLDERS]
    lines += ["folders=(", *(f"  {_path(task.folder)}" for task in stage.tasks), ")", _step(config, stage)]
    if prefix := sbatch_container.command_prefix(config, stage):
        lines += [_bash_array("container", prefix[:3], prefix[3:])]
    lines += ["", "start_task() {", *_processes(config, stage, kinds), "}", ""]
    return "\n".join(lines) + BODY.read_text()


def time_limit(config: Config, stage: PlannedStage) -> str:
    """What the stage asks for, or cluster.max_time where that is less; cluster.extra_sbatch.time is for all stages.

    Raises:
        ValueError: one of them is not a time that Slurm reads as it is meant.
    """
    if (for_all := config.extra_sbatch.get("time")) is not None:
        parse_limit(for_all, "cluster.extra_sbatch.time")
        return for_all
    asked = parse_limit(stage.resources.time, f"stages.{stage.name}.resources.time")
    if config.max_time is None or parse_limit(config.max_time, "cluster.max_time") >= asked:
        return stage.resources.time
    return config.max_time


def _gpus(config: Config, count: int) -> dict[str, str | None]:
    kind = f"{config.gpu_type}:" if config.gpu_type else ""
    ways: dict[str, dict[str, str | None]] = {
        "gpus-per-node": {"gpus-per-node": f"{kind}{count}"},
        "gres": {"gres": f"gpu:{kind}{count}"},
        "none": {},
    }
    if config.gpu_option not in ways:
        raise ValueError(f"cluster.gpu_option={config.gpu_option!r}; it may be one of {', '.join(ways)}")
    return ways[config.gpu_option] if count else {}


def _directives(config: Config, stage: PlannedStage, kinds: list[Kind], elements: str) -> list[str]:
    needs, folder, several = stage.resources, stage.folder, len(stage.tasks) > 1
    per_node = max(_layout(process, needs.nodes)[1] for kind in kinds for process in kind.processes)
    options: dict[str, str | None] = {
        "job-name": f"{folder.parent.name}/{stage.name}",
        "account": config.account,
        "partition": config.partition,
        "qos": config.qos,
        "constraint": config.constraint,
        "reservation": config.reservation,
        "nodes": str(needs.nodes),
        "ntasks-per-node": str(per_node),
        "cpus-per-task": str(config.cpus_per_task) if config.cpus_per_task else None,
        "mem": config.mem or node_memory(stage),
        "exclusive": "" if config.exclusive else None,
        **_gpus(config, needs.gpus),
        "time": time_limit(config, stage),
        "signal": f"B:USR1@{SIGNAL_BEFORE_END_S}",
        "requeue": "",
        "open-mode": "append",
        "export": ",".join([*EXPORTED, *map(_name, config.env_from)]),
        "chdir": _plain(ROOT),
        "output": f"{_plain(folder)}/logs/slurm-%{'A_%a' if several else 'j'}.log",
        "array": f"{elements}%{config.max_parallel_tasks}" if several else None,
    }
    if (least := config.extra_sbatch.get("time-min")) is not None:
        parse_limit(least, "cluster.extra_sbatch.time-min")
    options |= config.extra_sbatch
    return [_directive(key, value) for key, value in options.items() if value is not None]


def node_memory(stage: PlannedStage) -> str | None:
    """What to ask Slurm for where cluster.mem says nothing and the stage knows what it needs: without it a training is
    killed when it writes its first checkpoint."""
    return f"{math.ceil(stage.host_gib)}G" if stage.host_gib is not None else None


def _advice(stage: PlannedStage) -> dict[str, str]:
    """How to go on when the node's memory or a GPU's ran out."""
    place, content = f"stages.{stage.name}", stage.tasks[0].content
    node = "raise cluster.mem, or take whole nodes (cluster.exclusive=true cluster.mem=0)"
    if "server" in content:
        gpu = "lower server.max_batch_size, server.max_num_tokens or the share of memory that the cache takes"
    else:
        gpu = (
            f"dry_run=true shows what fits: a shorter {place}.pack_length, {place}.recompute_granularity=full or more "
            "model parallelism; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in cluster.env saves fragmentation"
        )
    return {"node": f"{node}, or lower {place}.workers" if "workers" in content else node, "gpu": gpu}


def _directive(key: str, value: str) -> str:
    name, equals, text = _option(key, value).partition("=")
    return f"#SBATCH {name}{equals}{shlex.quote(text) if equals else ''}"


def _option(key: str, value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", key) or not value.isprintable():
        raise ValueError(f"Slurm option {key!r}={value!r}: it must be an option's long name and one line of text")
    return f"--{key}={value}" if value else f"--{key}"


def _key(option: str) -> str:
    return option.removeprefix("--").partition("=")[0]


def _name(key: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        raise ValueError(f"cluster.env or env_from has {key!r}, which is not the name of an environment variable")
    return key


def _plain(folder: Path) -> str:
    if not str(folder).isprintable() or re.search(r"[%\\,:]", str(folder)):
        raise ValueError(f"{str(folder)!r}: Slurm gives % \\ , and : a meaning in paths; use another run_dir=")
    return str(folder)


def _path(folder: Path) -> str:
    return shlex.quote(_plain(folder))


def _step(config: Config, stage: PlannedStage) -> str:
    """The part all steps share, as a bash array. --overlap: services and main share the job's nodes and GPUs."""
    # --export=ALL: what sbatch's --export let in, and what this script sets
    flags = ["--overlap", "--export=ALL", "--input=none", "--open-mode=append", "--cpu-bind=none"]
    more = [_option(key, value) for key, value in config.extra_srun.items() if value is not None]
    flags = [flag for flag in flags if _key(flag) not in config.extra_srun]
    return _bash_array("step", ["srun", *flags], sbatch_container.step_options(config, stage) + more)


def _bash_array(name: str, first: list[str], others: list[str]) -> str:
    """`first` on one line, of `others` each option on its own."""
    text = f"{name}=({shlex.join(first)}"
    for word in others:
        # a comma unquoted looks like a mistake in an array, to people and to linters
        quoted = f"'{word}'" if "," in word and shlex.quote(word) == word else shlex.quote(word)
        text += (" " if text.endswith(("--rc", "--conf", "--mount", "--env")) else "\n  ") + quoted
    return text + ")"


def _scratch(config: Config) -> str:
    return f'{shlex.quote(f"{config.local_scratch}/enroot")}-"$SLURM_JOB_ID"'


def _kinds(stage: PlannedStage) -> list[Kind]:
    """Shards are one kind: they differ in their rows only."""
    found: list[tuple[dict[str, Any], Kind]] = []
    for index, task in enumerate(stage.tasks):
        content = task.content | {"output_dir": "", "shard": 0}
        alike = next((kind for other, kind in found if other == content), None)
        if alike is None:
            alike = Kind(task, task.processes, [])
            found.append((content, alike))
        alike.indices.append(index)
    return [kind for _, kind in found]


def _processes(config: Config, stage: PlannedStage, kinds: list[Kind]) -> list[str]:
    """The lines that start a task; a `case` on its number where tasks differ in more than their folder."""
    texts: dict[str, list[int]] = {}
    for kind in kinds:
        texts.setdefault("\n".join(_task(config, kind, stage.resources.nodes)), []).extend(kind.indices)
    if len(texts) == 1:
        return list(texts)
    arms = [f"  {'|'.join(map(str, sorted(indices)))})\n{text}\n  ;;" for text, indices in texts.items()]
    return ['  case "$index" in', *arms, "  esac"]


def _task(config: Config, kind: Kind, nodes: int) -> list[str]:
    task, processes = kind.task, kind.processes
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


def _service(config: Config, process: Process, task: Task, nodes: int) -> str:
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


def _command(config: Config, argv: list[str], task: Task) -> str:
    words = [_word(config.python if word == "python" else word, task) for word in argv]
    return " ".join(['"${container[@]}"', *words] if config.container == "enroot" else words)


def _word(word: str, task: Task) -> str:
    """Quoted for bash, with the task's folder as `$folder`: that lets the tasks of an array share their lines."""
    if str(task.folder) not in word:
        return shlex.quote(word)
    return '"$folder"'.join(shlex.quote(part) if part else "" for part in word.split(str(task.folder)))
