"""From a composed config to tasks: every stage typed and resolved, every refusal made, before anything starts.

A refusal is a ValueError of one line that names the place, the value and the choices.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, InterpolationToMissingValueError, OmegaConfBaseException

from launchers.planning import config_paths, overrides, plugins
from nemo_ext.records import manifest
from nemo_ext.records.files import write_text_atomic
from recipes.run_stage import config_hash, deciding
from recipes.stage import Process, Resources, Stage, main_process
from recipes.work import Work, has_work, work_of

UNFINISHED = ("parts", "completions.jsonl", "checkpoints", "candidates")
"""What stages go on from after a kill."""


@dataclass(frozen=True)
class Task:
    """One folder, one config.yaml, one set of processes."""

    stage: str
    part: str
    """A variant, `shard_<n>`, or empty when the stage is one task."""
    content: dict[str, Any]
    """The resolved config, as plain values: 2,880 shards must not cost 2,880 typed trees."""
    module: ModuleType

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.part}" if self.part else self.stage

    @property
    def folder(self) -> Path:
        return Path(self.content["output_dir"])

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def config(self) -> str:
        """The text of config.yaml."""
        return OmegaConf.to_yaml(OmegaConf.create(self.content))

    @property
    def config_hash(self) -> str:
        return config_hash(self.content)

    @property
    def schema(self) -> type[Stage]:
        """The stage's Config, as a type."""
        return getattr(self.module, "Config", Stage)

    def typed(self) -> Any:
        """The stage's Config object; nobody changes it."""
        return self._typed

    @cached_property
    def _typed(self) -> Any:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(self.module.Config), self.content))

    @cached_property
    def processes(self) -> list[Process]:
        path = str(self.config_path)
        if hasattr(self.module, "processes"):
            return self.module.processes(self.typed(), path)
        return [main_process(path)]

    @cached_property
    def work(self) -> Work | None:
        """None: nothing is known ahead."""
        return work_of(self.module, self.typed()) if has_work(self.module) else None

    def why_not_done(self) -> str | None:
        """None when it is finished, and its config, inputs and outputs are as they were."""
        return manifest.out_of_date(self.folder, self.config_hash)


@dataclass(frozen=True)
class PlannedStage:
    name: str
    uses: str
    after: list[str]
    resources: Resources
    tasks: list[Task]

    @property
    def folder(self) -> Path:
        """<run_dir>/<name>, also when the tasks are its subfolders."""
        task = self.tasks[0]
        return task.folder.parent if task.part else task.folder

    @property
    def differing_tasks(self) -> list[Task]:
        """Its tasks without those that differ in nothing but their shard."""
        return self.tasks[:1] if self.tasks[0].part.startswith("shard_") else self.tasks

    @property
    def work(self) -> Work | None:
        """What kind of work its tasks are."""
        return self.tasks[0].work

    @cached_property
    def host_gib(self) -> float | None:
        """GiB of its own memory that a node needs, where the stage can tell."""
        task = self.tasks[0]
        return task.module.host_gib(task.typed()) if hasattr(task.module, "host_gib") else None

    def why_not_done(self) -> str | None:
        """None when every task is finished and up to date."""
        return next((reason for task in self.tasks if (reason := task.why_not_done())), None)


def resolve(cfg: DictConfig, run_dir: Path) -> list[PlannedStage]:
    """The recipe's stages in order, typed, with every `${...}` filled in."""
    modules = plugins.stages()
    for name, stage in cfg.stages.items():
        if "uses" not in stage:
            raise ValueError(f"stages.{name}: the recipe has no such stage; it has: {', '.join(_stage_names(cfg))}")
        stage.name, stage.output_dir = name, str(run_dir.absolute() / str(name))
    above: list[str] = []
    planned = []
    for name, stage in cfg.stages.items():
        module = modules[stage.uses]
        config = _typed(cfg, str(name), stage, module.Config)
        unknown = [other for other in config.after if other not in above]
        if unknown:
            raise ValueError(f"stages.{name}.after names {unknown}; it must name stages listed above it: {above}")
        tasks = _tasks(config, str(name), module)
        for task in tasks if config.variants else tasks[:1]:  # shards are alike
            if hasattr(module, "check"):
                module.check(task.typed())
            assert task.processes, f"{task.name} has a main process"  # a wrong server is refused here, not days later
        resources = OmegaConf.to_object(config.resources)
        assert isinstance(resources, Resources), "typed by Stage"
        planned.append(PlannedStage(str(name), stage.uses, list(config.after), resources, tasks))
        above.append(str(name))
    return planned


def _stage_names(cfg: DictConfig) -> list[str]:
    return [str(name) for name, stage in cfg.stages.items() if "uses" in stage]


def _typed(cfg: DictConfig, name: str, stage: DictConfig, schema: type) -> DictConfig:
    """The stage's node, resolved and merged into its own type: Hydra lets `+key=value` past a typed node."""
    place = f"stages.{name} ({schema.__module__.replace('.', '/')}.py)"
    try:
        content = OmegaConf.to_container(stage, resolve=True, throw_on_missing=False)
        assert isinstance(content, dict), "a stage is a mapping"
        typed = OmegaConf.merge(OmegaConf.structured(schema), config_paths.made_absolute(content, schema))
    except InterpolationToMissingValueError as error:
        key = _first_line(error).rsplit(" ", 1)[1]
        raise ValueError(f"{place} needs {key}=, which is not set; conf/config.yaml says what it is") from error
    except ConfigKeyError as error:
        raise ValueError(_unknown_key(f"stages.{name}", error)) from None
    except OmegaConfBaseException as error:
        raise ValueError(f"{place}: {_first_line(error)}") from error
    missing = sorted(OmegaConf.missing_keys(typed))
    if missing:
        raise ValueError(f"not set: {', '.join(f'stages.{name}.{key}' for key in missing)}")
    assert isinstance(typed, DictConfig), "a stage is a mapping"
    return typed


def _unknown_key(place: str, error: ConfigKeyError) -> str:
    """Which key a typed node has not got, and the nearest that it has."""
    known = [field.name for field in fields(error.object_type)] if is_dataclass(error.object_type) else []
    full_key = str(error.full_key or error.key)
    of = ".".join([place, *full_key.split(".")[:-1]])
    return f"{place}.{full_key}: {of} has no {str(error.key)!r}; {overrides.nearest(str(error.key), known)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _tasks(config: DictConfig, stage: str, module: ModuleType) -> list[Task]:
    """One task per variant or shard, or one for the whole stage."""
    if config.variants and config.shards > 1:
        raise ValueError(f"stages.{stage} has both shards and variants; it can have one of them")
    if config.shards > 1 and not module.Config.splits_rows:
        raise ValueError(f"stages.{stage}.shards={config.shards}, but {config.uses} is one task: leave shards at 1")
    whole = OmegaConf.to_container(config)
    assert isinstance(whole, dict), "a stage is a mapping"
    content = {str(key): value for key, value in whole.items()}
    folder = content["output_dir"]
    if config.variants:
        variants = content.pop("variants")
        return [
            Task(
                stage,
                part,
                _variant(content | {"output_dir": f"{folder}/{part}"}, changes, stage, part, module),
                module,
            )
            for part, changes in variants.items()
        ]
    if config.shards > 1:
        width = len(str(config.shards - 1))
        parts = {f"shard_{index:0{width}d}": index for index in range(config.shards)}
        return [
            Task(stage, part, content | {"shard": index, "output_dir": f"{folder}/{part}"}, module)
            for part, index in parts.items()
        ]
    return [Task(stage, "", content, module)]


def _variant(content: dict[str, Any], changes: Any, stage: str, part: str, module: ModuleType) -> dict[str, Any]:
    try:
        merged = OmegaConf.merge(OmegaConf.structured(module.Config), content, changes or {})
    except ConfigKeyError as error:
        raise ValueError(_unknown_key(f"stages.{stage}.variants.{part}", error)) from None
    except OmegaConfBaseException as error:
        raise ValueError(f"stages.{stage}.variants.{part}: {_first_line(error)}") from error
    container = OmegaConf.to_container(merged)
    assert isinstance(container, dict), "a stage is a mapping"
    return {str(key): value for key, value in container.items()}


def select(stages: list[PlannedStage], only: list[str], from_stage: str | None) -> list[PlannedStage]:
    """The stages asked for; the others are taken as they are on disk."""
    names = [stage.name for stage in stages]
    for name in [*only, *([from_stage] if from_stage else [])]:
        if name not in names:
            raise ValueError(f"no stage {name!r} in this recipe; it has: {', '.join(names)}")
    start = names.index(from_stage) if from_stage else 0
    return [stage for stage in stages[start:] if not only or stage.name in only]


def require_finished(stages: list[PlannedStage], selected: list[PlannedStage]) -> None:
    """A stage that is left out but needed must be on disk."""
    chosen = {stage.name for stage in selected}
    by_name = {stage.name: stage for stage in stages}
    for stage in selected:
        for other in stage.after:
            if other not in chosen and not all(manifest.finished_config(task.folder) for task in by_name[other].tasks):
                raise ValueError(f"stage {stage.name} needs {other}, which is left out and has not finished")


def stale(stages: list[PlannedStage], selected: list[PlannedStage]) -> list[str]:
    """Stages that are left out and needed, and rest on files that have changed since they ran: what is made now will rest
    on what they were."""
    chosen, by_name = {stage.name for stage in selected}, {stage.name: stage for stage in stages}
    needed = dict.fromkeys(other for stage in selected for other in stage.after if other not in chosen)
    reasons = {name: _inputs_changed(by_name[name]) for name in needed}
    return [f"{name} is left out and out of date: {reason}" for name, reason in reasons.items() if reason]


def _inputs_changed(stage: PlannedStage) -> str | None:
    return next((reason for task in stage.tasks if (reason := manifest.inputs_changed(task.folder))), None)


def write_configs(stages: list[PlannedStage], redo: bool) -> None:
    """Write each task's config.yaml, the one file the job reads.

    Raises:
        ValueError: the folder holds results of another config, or of nobody knows which: names the differing keys and the
            ways on.
    """
    texts = [list(_configs(stage)) for stage in stages]
    for stage, configs in zip(stages, texts, strict=True):
        if redo and stage.folder.exists():
            _set_aside(stage.folder)
        for task, text in zip(stage.tasks, configs, strict=True):
            if differing := _differences(task, text):
                shown = "; ".join(differing[:8]) + (f"; and {len(differing) - 8} more" if len(differing) > 8 else "")
                _refuse(task.folder, f"was made with another config: {shown}")
            if not _is_whole(task, text) and _has_results(task):
                _refuse(task.folder, "has results and no config.yaml, or a part of it, that says of what")
        if strangers := _other_tasks(stage):
            _refuse(stage.folder, f"has results of other tasks: {', '.join(strangers)}")
    for stage, configs in zip(stages, texts, strict=True):
        for task, text in zip(stage.tasks, configs, strict=True):
            # the next launch makes it again, and there may be thousands: not worth a wait for the disk each
            if not task.config_path.is_file() or task.config_path.read_text() != text:
                write_text_atomic(task.config_path, text, durable=False)


def _configs(stage: PlannedStage) -> Iterator[str]:
    """The text of each task's config.yaml. Shards differ in two lines, and YAML takes 10 ms for the whole of it."""
    first = stage.tasks[0]
    if not first.part.startswith("shard_"):
        yield from (task.config for task in stage.tasks)
        return
    folder = "\n" + OmegaConf.to_yaml({"output_dir": first.content["output_dir"]})
    before, _, rest = first.config.partition(folder)
    between, _, after = rest.partition("\nshard: 0\n")
    for task in stage.tasks:
        here = task.part.join(folder.rsplit(first.part, 1))
        yield f"{before}{here}{between}\nshard: {task.content['shard']}\n{after}"


def _refuse(folder: Path, why: str) -> None:
    raise ValueError(
        f"{folder} {why}. Use another run_name=, or redo=true to set its results aside and make them anew."
    )


def _other_tasks(stage: PlannedStage) -> list[str]:
    """Folders of tasks that this stage had under other settings, such as 16 shards instead of 8: later stages would
    read them too."""
    own = {task.folder for task in stage.tasks}
    configs = [stage.folder / "config.yaml", *sorted(stage.folder.glob("*/config.yaml"))]
    return [path.parent.name for path in configs if path.is_file() and path.parent not in own][:8]


def _set_aside(folder: Path) -> None:
    number = 1
    while (kept := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    shutil.move(folder, kept)


def _differences(task: Task, text: str) -> list[str]:
    """`key: old -> new` of every leaf that decides the result and differs from the config on disk."""
    if not _is_whole(task, text):
        return []
    on_disk = OmegaConf.to_container(OmegaConf.load(task.config_path))
    assert isinstance(on_disk, dict), "a stage's config is a mapping"
    old, new = (_leaves(deciding(content)) for content in ({str(k): v for k, v in on_disk.items()}, task.content))
    keys = sorted(old.keys() | new.keys())
    return [
        f"{key}: {old.get(key, 'unset')} -> {new.get(key, 'unset')}" for key in keys if old.get(key) != new.get(key)
    ]


def _is_whole(task: Task, text: str) -> bool:
    """Whether there is a config.yaml; a machine that lost its power may have left the beginning of `text`."""
    if not task.config_path.is_file():
        return False
    found = task.config_path.read_text()
    return found == text or not text.startswith(found)


def _has_results(task: Task) -> bool:
    """What a run would take up, or take for its own; not so where _DONE says that it was made with this very config."""
    if manifest.finished_config(task.folder) == task.config_hash:
        return False
    return any((task.folder / name).exists() for name in (manifest.DONE, *UNFINISHED))


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {k: v for key, value in node.items() for k, v in _leaves(value, f"{prefix}.{key!s}").items()}
    return {prefix.lstrip("."): node}
