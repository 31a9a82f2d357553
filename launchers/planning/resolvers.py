"""The functions that `${...}` may call in conf/: files of other groups, by name.

${prompt:math_base,math_text_detailed}   conf/prompt/math_base.yaml with the examples of conf/few_shot/...
${prompt:openmath_code}                  the same with the examples that the file names;  ${prompt:${prompt}}: the root's
${resources_of:${server}}                the nodes, GPUs and image that a server takes; none for server=external
${benchmarks:[gsm8k,math]}               conf/benchmark/*.yaml by name; a path stands for a benchmark of your own
${every:20000,6,10}                      3330: steps between 6 checkpoints of 20,000 steps, rounded down to tens
${spaced:20000,6,10}                     [3330, 6660, ..., 16650, 20000]: their steps
${epoch_steps:4,1023677,128,2}           31984: steps of 4 epochs of so many rows in batches of 128, with 2 equally spaced
                                         checkpoints in each: whole batches between two of them
${times:2,8}                             16
${of_student:lr}                         the lr that sizes.students has for the student of this run
${per_variant:train,checkpoints}         for every variant of the stage `subset`: {checkpoints: <run>/train/<variant>}
${students_of:average}                   the same: {model: {name: <variant>, hf_path: <run>/average/<variant>/average}}
${size:60000,240}                        the published size, or with tiny=true, as +scale=tiny sets it, the second
${recipe_name:one_stage/grade}           grade: what its runs are called
${repo:}                                 the repository's folder
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from launchers.planning import recipe_files
from nemo_ext.problems.benchmark_files import BENCHMARK_FILES
from nemo_ext.serving import server as servers

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"


def _load(group: str, name: str) -> DictConfig:
    path = CONF / group / f"{name}.yaml"
    if not path.is_file():
        choices = sorted(p.stem for p in (CONF / group).glob("*.yaml"))
        raise ValueError(f"no conf/{group}/{name}.yaml; conf/{group} has: {', '.join(choices)}")
    loaded = OmegaConf.load(path)
    assert isinstance(loaded, DictConfig), f"{path} is a mapping"
    return loaded


def prompt(source: str | DictConfig, few_shot: str | None = None) -> DictConfig:
    """A prompt file, or what one holds; its examples are the set given, or else the one that it names."""
    loaded = _load("prompt", source) if isinstance(source, str) else source.copy()
    named = few_shot or (loaded.few_shot if isinstance(loaded.few_shot, str) else None)
    if named:
        loaded.name = f"{loaded.name}+{named}"
        loaded.few_shot = _load("few_shot", named).examples
    elif isinstance(source, str):
        loaded.few_shot = []
    return loaded


def resources_of(server: DictConfig, key: str | None = None) -> Any:
    """Just what the servers need, or one key of that; nothing where none is started."""
    needs = _resources_of(server)
    return needs if key is None else needs[key]


def _resources_of(server: DictConfig) -> DictConfig:
    loaded = servers.load(OmegaConf.to_container(server))  # type: ignore[arg-type]
    if not isinstance(loaded, servers.GpuServer):
        return OmegaConf.create({"nodes": 1, "gpus": 0, "image": "base"})
    nodes = loaded.replicas * loaded.nodes if loaded.nodes > 1 else 1
    return OmegaConf.create({"nodes": nodes, "gpus": loaded.replicas * loaded.gpus // nodes, "image": loaded.kind})


def benchmarks(names: Iterable[str]) -> DictConfig:
    """Raises ValueError for a file of another kind, and when two would have the same name, as rows and tables tell them
    apart by it."""
    found: dict[str, DictConfig] = {}
    for given in names:
        path = Path(given)
        of_ones_own = path.name.endswith(BENCHMARK_FILES)
        if not of_ones_own and "/" in given:
            raise ValueError(
                f"benchmarks: {given}: a benchmark of your own is a file that ends in {', '.join(BENCHMARK_FILES)}"
            )
        name = path.name.split(".")[0] if of_ones_own else given
        if name in found:
            raise ValueError(
                f"benchmarks: {given} would be called {name!r}, as another one before it is: a file is called by its name "
                "up to the first dot. Rename the file, or leave one of them out"
            )
        found[name] = OmegaConf.create({"path": str(path.absolute())}) if of_ones_own else _benchmark(name)
    return OmegaConf.create(found)


def _benchmark(name: str) -> DictConfig:
    """With what tells its other versions from it, which their own files say."""
    loaded = _load("benchmark", name)
    others = {other: _load("benchmark", other) for other in loaded.get("versions", [])}
    loaded.versions = {
        other: {"num_rows": each.num_rows, "content_hash": each.content_hash} for other, each in others.items()
    }
    return loaded


def size(published: Any, tiny: Any, *, _root_: DictConfig) -> Any:
    """One of the two sizes, which a recipe gives side by side."""
    return tiny if _root_.tiny else published


def every(total: int, parts: int, multiple: int = 1) -> int:
    """Steps between `parts` checkpoints of `total` steps; rounded down to a `multiple` where they do not divide."""
    spacing = total // parts if total % parts == 0 else total // parts // multiple * multiple
    if not spacing or (total % parts and multiple == 1):
        raise ValueError(f"{total} steps have no {parts} equally spaced checkpoints; make it a multiple of {parts}")
    return spacing


def spaced(total: int, parts: int, multiple: int = 1) -> ListConfig:
    """The steps of those checkpoints; the last is always `total`."""
    spacing = every(total, parts, multiple)
    return OmegaConf.create([*(spacing * part for part in range(1, parts)), total])


def epoch_steps(epochs: int, rows: int, batch: int, checkpoints_per_epoch: int) -> int:
    """Steps of `epochs` passes over `rows`, rounded down to whole batches between two checkpoints."""
    between = rows // (batch * checkpoints_per_epoch)
    if not between:
        raise ValueError(f"{rows} rows are less than {checkpoints_per_epoch} batches of {batch}, one a checkpoint")
    return between * checkpoints_per_epoch * epochs


def of_student(key: str, *, _root_: DictConfig) -> Any:
    """What the recipe's table of students has for the one of this run.

    Raises:
        ValueError: the student is not in it, or without this key.
    """
    name, table = _root_.student.name, _root_.sizes.students
    if name not in table or key not in table[name]:
        raise ValueError(
            f"sizes.students has no {key} for {name}, only for {', '.join(table)}. Give sizes.{key}=<yours>, or "
            f"+sizes.students.{name}='{{epochs: 4, lr: 1e-5, ...}}' with all keys of the others"
        )
    return table[name][key]


SUBSETS = "subset"
"""The stage whose variants are the data sets that a recipe compares."""


def per_variant(stage: str, key: str, *, _root_: DictConfig) -> DictConfig:
    """Variants that each take up what the stage's variant of the same name left."""
    folder = _root_.stages[stage].output_dir
    return OmegaConf.create({name: {key: f"{folder}/{name}"} for name in _root_.stages[SUBSETS].variants})


def students_of(stage: str, *, _root_: DictConfig) -> DictConfig:
    """Variants that each serve the model of the stage's variant of the same name."""
    folder = _root_.stages[stage].output_dir
    names = _root_.stages[SUBSETS].variants
    return OmegaConf.create({name: {"model": {"name": name, "hf_path": f"{folder}/{name}/average"}} for name in names})


def register() -> None:
    OmegaConf.register_new_resolver("prompt", prompt, replace=True)
    OmegaConf.register_new_resolver("resources_of", resources_of, replace=True)
    OmegaConf.register_new_resolver("benchmarks", benchmarks, replace=True)
    OmegaConf.register_new_resolver("size", size, replace=True)
    OmegaConf.register_new_resolver("every", every, replace=True)
    OmegaConf.register_new_resolver("spaced", spaced, replace=True)
    OmegaConf.register_new_resolver("epoch_steps", epoch_steps, replace=True)
    OmegaConf.register_new_resolver("times", lambda *factors: math.prod(factors), replace=True)
    OmegaConf.register_new_resolver("of_student", of_student, replace=True)
    OmegaConf.register_new_resolver("per_variant", per_variant, replace=True)
    OmegaConf.register_new_resolver("students_of", students_of, replace=True)
    OmegaConf.register_new_resolver("recipe_name", recipe_files.short_name, replace=True)
    OmegaConf.register_new_resolver("repo", lambda: str(ROOT), replace=True)
