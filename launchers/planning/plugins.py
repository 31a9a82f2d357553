"""Finds stages and executors by file name and tells Hydra the stages' types. Adding one is adding a file."""

import importlib
import pkgutil
from types import ModuleType

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import launchers.executors
from recipes.find_stage import stage_module, stage_paths


def find(package: ModuleType) -> dict[str, ModuleType]:
    """Every module of `package`, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def stages() -> dict[str, ModuleType]:
    """Every stage's module, by name."""
    return {name: stage_module(name) for name in stage_paths()}


def executors() -> dict[str, ModuleType]:
    return find(launchers.executors)


def register() -> None:
    """Store each stage's Config in Hydra's group `stage`, so `/stage/generate@stages.solve` places it anywhere, typed."""
    store = ConfigStore.instance()
    for name, module in stages().items():
        node = OmegaConf.structured(module.Config)
        node.uses = name
        store.store(group="stage", name=name, node=node)
