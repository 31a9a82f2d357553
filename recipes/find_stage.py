"""Find stages by file name: recipes/stages/<group>/<name>.py is the stage <name>. Light imports only."""

import importlib
import pkgutil
from types import ModuleType

import recipes.stages


def stage_paths(package: ModuleType = recipes.stages) -> dict[str, str]:
    """Name of every stage -> its dotted module, sorted by name; nothing of it is imported.

    Raises:
        ValueError: two groups have a stage of one name.
    """
    paths: dict[str, str] = {}
    for group in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        folder = importlib.import_module(group.name)
        for info in pkgutil.iter_modules(folder.__path__, f"{group.name}."):
            name = info.name.rpartition(".")[2]
            if name in paths:
                raise ValueError(
                    f"two stages are called {name}: {paths[name]} and {info.name}; rename one of the files"
                )
            paths[name] = info.name
    return dict(sorted(paths.items()))


def stage_module(name: str) -> ModuleType:
    """The stage's module.

    Raises:
        ValueError: there is no such stage.
    """
    paths = stage_paths()
    if name not in paths:
        raise ValueError(f"no stage {name!r} in recipes/stages; there are: {', '.join(paths)}")
    return importlib.import_module(paths[name])
