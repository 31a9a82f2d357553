"""Compose, check, plan, run: `python launchers/run.py +recipe=<name> [+scale=tiny] [key=value ...]`.

Without a recipe it lists them. Also: dry_run=true, only=[stage,...], from_stage=<stage>, redo=true, cluster=<name>.
Exit codes: 0 done, 1 a stage failed, 2 refused before anything was started, 130 interrupted.
"""

import errno
import fcntl
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

# `python launchers/run.py` puts launchers/ first on the path, where a file could shadow a library
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import hydra
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from launchers.estimates import estimate
from launchers.following import launcher_record
from launchers.here.display import Display
from launchers.here.processes import TaskFailed
from launchers.planning import config_paths, overrides, plan, plugins, preflight, recipe_files, resolvers, user_config
from launchers.submit_host import remote_launch, remote_run
from launchers.submit_host.link import SshHost
from nemo_ext.models.model import Model
from nemo_ext.rows.outside.columns import check_columns
from nemo_ext.serving import server as servers

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)


SERVERS, MODELS = ("server", "student_server"), ("student", "teacher")
READING = ("columns", "split")
"""Root keys that say how rows from outside are read."""


def check_root(cfg: DictConfig) -> None:
    """Raises ValueError for what nothing would read: `+key=value` at the root, which Hydra takes, and how to read rows
    where no stage asks."""
    known = OmegaConf.load(resolvers.CONF / "config.yaml")
    declared = {str(key) for key in known} | {
        "student",
        "teacher",
        "server",
        "student_server",
        "cluster",
        "prompt",
        "stages",
    }
    unknown = sorted(str(key) for key in cfg if key not in declared)
    if unknown:
        raise ValueError(f"unknown key {', '.join(unknown)}; {overrides.nearest(unknown[0], declared)}")
    overrides.refuse_unread(cfg, list(HydraConfig.get().overrides.task), resolvers.CONF)
    overrides.refuse_lost(cfg, list(HydraConfig.get().overrides.task))
    check_groups(cfg)
    _check_reading(cfg)


def _check_reading(cfg: DictConfig) -> None:
    """Raises ValueError for columns= or split= that would do nothing, and for columns= that names no columns."""
    columns = cfg.columns
    check_columns("columns", OmegaConf.to_container(columns) if OmegaConf.is_config(columns) else columns)
    stages = OmegaConf.to_container(cfg.stages, resolve=False)
    for key in READING:
        if cfg[key] and f"${{{key}}}" not in _texts(stages):
            recipes = recipe_files.RECIPES.rglob("*.yaml")
            takers = sorted(path.stem for path in recipes if f"${{{key}}}" in path.read_text())
            raise ValueError(
                f"{key}={cfg[key]}: no stage of this recipe takes it; those of {', '.join(takers)} do, of the rows that "
                "input= or data= names"
            )


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from _texts(each)
    elif isinstance(content, str):
        yield content


def check_groups(cfg: DictConfig) -> None:
    """Raises ValueError for a key that a model or a kind of server has not got, also where no stage uses it."""
    known = dict.fromkeys(MODELS, Model) | {
        key: servers.module_of(str(cfg[key].get("kind"))).Config for key in SERVERS
    }
    for key, config in known.items():
        names = {field.name for field in fields(config)}
        if unknown := [str(name) for name in cfg[key] if name not in names]:
            kind = f" (server.kind={cfg[key].kind})" if key in SERVERS else ""
            raise ValueError(
                f"{key}.{unknown[0]}: {key}{kind} has no {unknown[0]!r}; {overrides.nearest(unknown[0], names)}"
            )


def executor_of(cfg: DictConfig) -> tuple[Any, Any]:
    """The cluster's executor module and its typed config."""
    executors = plugins.executors()
    kind = cfg.cluster.get("executor")
    if kind not in executors:
        raise ValueError(f"cluster.executor={kind!r}; launchers/executors has: {', '.join(executors)}")
    known = {field.name for field in fields(executors[kind].Config)}
    if unknown := [str(key) for key in cfg.cluster if key not in known]:
        raise ValueError(
            f"unknown key cluster.{', cluster.'.join(unknown)} of cluster.executor={kind}; "
            f"{overrides.nearest(unknown[0], known)}"
        )
    try:
        typed = OmegaConf.merge(OmegaConf.structured(executors[kind].Config), cfg.cluster)
        return executors[kind], OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        if SshHost.__name__ in message:
            message += (
                f"; cluster.ssh is like {{host: login1}}, and has: {', '.join(key.name for key in fields(SshHost))}"
            )
        raise ValueError(f"cluster (launchers/executors/{kind}.py): {message}") from error


def show(stages: list[plan.PlannedStage], estimates: list[estimate.Estimate]) -> str:
    """dry_run: every stage's resources, estimate, commands and resolved config; of shards, which are alike, the first."""
    parts = []
    about = {each.stage: estimate.details(each).splitlines() for each in estimates}
    for stage in stages:
        needs = stage.resources
        sharded = stage.tasks[0].part.startswith("shard_")
        for task in stage.tasks[:1] if sharded else stage.tasks:
            count = f" ({len(stage.tasks)} shards, this is the first)" if sharded else ""
            where = f"{needs.nodes} node(s) x {needs.gpus} GPUs, image {needs.image}, limit {needs.time}"
            commands = [
                f"#   {p.ranks} x {shlex.join(p.argv)}{'  (service)' if p.service else ''}" for p in task.processes
            ]
            figures = about.get(stage.name, []) if task is stage.tasks[0] else []
            parts.append("\n".join([f"# {task.name}{count}: {where}", *figures, *commands, task.config]))
    return "\n".join(parts)


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """One launcher per run folder.

    Raises:
        ValueError: another one is at work there, or nothing can be written there.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = (run_dir / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"{run_dir} cannot be written: {error}. Set RUNS_DIR, or run_dir=") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{run_dir}: another launcher is running it. Wait for it, or use another run_name=."
            ) from None
        yield


def run_folder(cfg: DictConfig) -> Path:
    """Raises ValueError when the run's name or folder is not set, or the recipe makes it of a key that the command line left
    out."""
    try:
        overrides.check_name(str(cfg.run_name))
        if not cfg.run_dir:
            raise ValueError("run_dir= is empty (an unset variable of the shell?): give it a folder, or leave it out")
        return Path(cfg.run_dir).absolute()
    except InterpolationToMissingValueError as error:
        key = str(error).splitlines()[0].rsplit(" ", 1)[1]
        raise ValueError(f"not set: {key}; the recipe needs it, conf/config.yaml says what it is") from error


def launch(cfg: DictConfig, display: Display) -> int:
    """Everything from a composed config to finished stages; the exit code.

    Raises:
        ValueError: refused; nothing was started.
        TaskFailed: a stage failed.
    """
    check_root(cfg)
    run_dir = run_folder(cfg)
    for key in config_paths.ROOT_KEYS:
        if not OmegaConf.is_missing(cfg, key) and cfg[key]:
            cfg[key] = config_paths.absolute(str(cfg[key]))
    executor, cluster = executor_of(cfg)
    if getattr(cluster, "ssh", None) and not cfg.dry_run:
        words = list(HydraConfig.get().overrides.task)
        return remote_launch.launch(cfg, cluster.ssh, cluster.env_from, words, display)
    if (run_dir / remote_run.REMOTE).exists():
        raise ValueError(f"{run_dir} stands for a run on another machine (remote.json): use another run_name=")
    cfg.run_dir = str(run_dir)
    stages = plan.resolve(cfg, run_dir)
    selected = plan.select(stages, [cfg.only] if isinstance(cfg.only, str) else list(cfg.only), cfg.from_stage)
    gpu = estimate.gpu_of(cluster, selected)
    estimates = estimate.estimate(selected, stages, cluster, gpu)
    if cfg.dry_run:
        print(show(selected, estimates))
        print("\n".join(f"# {line}".rstrip() for line in estimate.table(estimates, gpu)))
    estimate.refuse(estimates, cluster)
    if cfg.dry_run:
        preflight.paths_not_here(selected, cluster).show(display)
        return 0
    executor.check(cluster, selected)
    plan.require_finished(stages, selected)
    with run_lock(run_dir):
        for warning in plan.stale(stages, selected):
            display.line(f"warning: {warning}", style="yellow")
        plan.write_configs(selected, cfg.redo)
        todo: list[plan.PlannedStage] = []
        for stage in selected:
            # once one stage runs, those after it may see other inputs, so they are looked at again when their turn comes
            if not todo and stage.why_not_done() is None:
                display.done_before(stage.name, [task.folder for task in stage.tasks])
            else:
                todo.append(stage)
        names = {stage.name for stage in todo}
        display.show_estimate(estimate.table([each for each in estimates if each.stage in names], gpu))
        for warning in [line for each in estimates if each.stage in names for line in each.warnings]:
            display.line(f"warning: {warning}", style="yellow")
        with launcher_record.recorded(run_dir, cluster.executor, stages, todo):
            executor.submit(cluster, todo, display)
        display.line(f"run folder: {run_dir}")
    return 0


def _explained(error: Exception) -> str:
    """Composing again needs what @hydra.main has left."""
    with initialize_config_dir(str(resolvers.CONF), version_base="1.3"):
        return overrides.explain(error, sys.argv[1:])


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def look_around() -> None:
    """Raises ValueError for what Hydra would answer with a traceback, or not at all."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError("the folder this shell is in no longer exists: cd to another one") from None
    user_config.check(resolvers.CONF / "user")


def main() -> int:
    plugins.register()
    resolvers.register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, to be shown in one line
    if not any(arg.startswith(("+recipe=", "-", "recipe=")) for arg in sys.argv[1:]):
        print(recipe_files.listed())
        return 0 if len(sys.argv) == 1 else 2
    display = Display()
    try:
        look_around()
        sys.argv[1:] = overrides.prepare(recipe_files.named(overrides.joined(sys.argv[1:])))
    except ValueError as error:
        display.line(f"error: {error}", style="red")
        return 2
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, interrupt)

    raised: list[BaseException] = []
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(resolvers.CONF), config_name="config")
    def entry(cfg: DictConfig) -> None:
        try:
            codes.append(launch(cfg, display))
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - re-raised below: Hydra would print a traceback
            raised.append(error)

    try:
        entry()
        if raised:
            raise raised[0]
        return codes[0] if codes else 0
    except preflight.Refused as error:  # several lines, one per thing to change
        display.line(f"error: {error}", style="red")
        return 2
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        display.line(f"error: {_explained(error)}", style="red")
        return 2
    except (AssertionError, AttributeError) as error:
        if not overrides.sets_null(error):
            raise
        display.line(f"error: {overrides.SETS_NULL}", style="red")
        return 2
    except TaskFailed as error:
        display.line(f"failed: {error}", style="red")
        display.line("What was done is kept: the same command goes on from here.")
        return 1
    except BrokenPipeError:  # dry_run=true | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        place = error.filename or "the run folder (RUNS_DIR) or TMPDIR"
        display.line(f"error: {place} cannot be written: {error.strerror}; the same command goes on.", style="red")
        return 1
    except KeyboardInterrupt:
        display.line("interrupted: everything that was started has been stopped; the same command goes on from here.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
