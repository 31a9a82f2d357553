"""Finds stages and executors by file name and tells Hydra the stages' types. Adding one is adding a file."""

import importlib
from types import ModuleType

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import launchers.executors
from nemo_ext import plug_ins
from recipes.asking.served import ServedStage
from recipes.find_stage import stage_module, stage_paths

FROM_SERVER = ("nodes", "gpus", "image")
"""Resources of a stage that asks a model which follow from its `server`."""


def find(package: ModuleType) -> dict[str, ModuleType]:
    """Every module of `package`, by name."""
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in plug_ins.names(package)}


def stages() -> dict[str, ModuleType]:
    """Every stage's module, by name."""
    return {name: stage_module(name) for name in stage_paths()}


def executors() -> dict[str, ModuleType]:
    return find(launchers.executors)


def register() -> None:
    """Store each stage's Config in Hydra's group `stage`, so `/stage/generate@stages.solve` places it anywhere, typed. The
    resources of one that asks a model are what its servers take, where neither recipe nor command line says otherwise."""
    store = ConfigStore.instance()
    for name, module in stages().items():
        node = OmegaConf.structured(module.Config)
        node.uses = name
        if issubclass(module.Config, ServedStage):
            for key in FROM_SERVER:
                node.resources[key] = f"${{resources_of:${{..server}},{key}}}"
        store.store(group="stage", name=name, node=node)
