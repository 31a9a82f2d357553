"""The rules of CONTRIBUTING.md that a reader cannot be trusted to remember."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from launchers.planning import recipe_files
from recipes.find_stage import stage_paths
from tests.composing import RECIPES
from tests.conftest import ROOT

LAYERS = ("tests", "launchers", "recipes", "nemo_ext")  # each may import those after it
PRODUCT = LAYERS[1:]
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_YAML_LINES, MAX_MODULES = 400, 60, 120, 14
LONG_YAML = {"conf/few_shot/math_code_masked.yaml": 130, "conf/recipe/openmathinstruct2.yaml": 160}
PLUG_INS = {
    "launchers/executors",
    "nemo_ext/curation/filters",
    "nemo_ext/megatron/families",
    "nemo_ext/megatron/objectives",
    "nemo_ext/megatron/weights/families",
    "nemo_ext/models/families",
    "nemo_ext/prompts/replies",
    "nemo_ext/rows/schemes",
    "nemo_ext/serving/servers",
}
"""Folders whose files are found by name: each is one more of a kind, so there may be any number."""
MACHINE_PATH = re.compile(r"(?<![\w.}\])])/(root|work|home)(?=/|\b)")


def python_files(*layers: str) -> list[Path]:
    return sorted(path for layer in layers for path in (ROOT / layer).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> list[str]:
    """Dotted names of what a file imports, at any depth."""
    names = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_go_one_way() -> None:
    wrong = []
    for path in python_files(*LAYERS):
        allowed = LAYERS[LAYERS.index(path.relative_to(ROOT).parts[0]) :]
        wrong += [f"{of(path)}: {name}" for name in imported(path) if name.split(".")[0] in set(LAYERS) - set(allowed)]
    assert not wrong


def test_hydra_stays_in_launchers_and_tests() -> None:
    assert not [of(path) for path in python_files("recipes", "nemo_ext") if "hydra" in heads(path)]
    assert [path for path in python_files("launchers") if "hydra" in heads(path)], "the check finds hydra where it is"


ASKING_HEAD = re.compile(r"(What|Whether|Of|Which|How|Where|When|Why|Who|In which|Is|Are|Do|Does)\b")


def test_docstrings_of_modules_open_with_a_verb_or_a_noun() -> None:
    heads = {of(path): (ast.get_docstring(tree(path)) or "").split("\n")[0] for path in python_files(*PRODUCT)}
    assert not {place: head for place, head in heads.items() if not head or ASKING_HEAD.match(head)}


def heads(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_stages_do_not_import_each_other() -> None:
    files = sorted((ROOT / "recipes" / "stages").rglob("*.py"))
    assert len(files) > 10
    assert not [
        f"{of(path)}: {name}" for path in files for name in imported(path) if name.startswith("recipes.stages")
    ]


def stage_names_in(program: ast.Module) -> set[str]:
    """Strings of a program that are the name of a stage's file."""
    texts = {
        node.value for node in ast.walk(program) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return texts & stage_paths().keys()


def test_launchers_ask_for_no_stage_by_name() -> None:
    """They go by what a stage module says of its work, and its Config of its fields."""
    named = {of(path): stage_names_in(tree(path)) for path in python_files("launchers")}
    assert not {name: found for name, found in named.items() if found}
    assert stage_names_in(ast.parse('if stage.uses == "train_sft": pass')) == {"train_sft"}


def test_planning_needs_no_torch() -> None:
    """The login node may have none: import everything it imports, and plan the whole pipeline, with torch blocked."""
    program = """
import importlib, pkgutil, runpy, sys
sys.path.insert(0, ".")
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "megatron"}:
            raise ImportError(f"{name} was imported on the login node")
sys.meta_path.insert(0, Block())
import launchers.run, launchers.executors, recipes.stages
for package in (launchers.executors, recipes.stages):
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(info.name)
sys.argv = ["run.py", "+recipe=openmathinstruct2", "+scale=tiny", "dry_run=true"]
runpy.run_path(launchers.run.__file__, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "# report:" in done.stdout


def test_files_and_functions_are_short() -> None:
    wrong = [of(path) for path in python_files(*PRODUCT) if len(path.read_text().splitlines()) > MAX_FILE_LINES]
    for path in python_files(*PRODUCT):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    wrong.append(f"{of(path)}:{node.lineno} {node.name} has {lines} lines")
    assert not wrong


def test_folders_are_small() -> None:
    counts = Counter(of(path.parent) for path in python_files(*PRODUCT) if path.name != "__init__.py")
    assert len(counts) > 20
    assert not {folder: count for folder, count in counts.items() if count > MAX_MODULES and folder not in PLUG_INS}
    assert counts.keys() >= PLUG_INS


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in python_files(*PRODUCT)}


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, however many steps it takes."""
    order, lowest, path, found = dict[str, int](), dict[str, int](), list[str](), list[list[str]]()

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        path.append(name)
        for other in sorted(imports[name]):
            if other not in order:
                visit(other)
            if other in path:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == order[name]:
            group = path[path.index(name) :]
            del path[path.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in imports:
        if name not in order:
            visit(name)
    return found


def test_no_import_circle() -> None:
    """Imports within functions and for type checkers count: a module that needs another is above it."""
    files = modules()
    imports = {
        name: {each for long in imported(path) for each in (long, long.rpartition(".")[0]) if each in files} - {name}
        for name, path in files.items()
    }
    assert sum(map(len, imports.values())) > 500
    assert not circles(imports)


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


NAMED_FILE = re.compile(
    r"(?<![\w./<-])((?:nemo_ext|launchers|recipes|conf|containers|tests)/[\w./-]*\w\.(?:py|md|yaml|jinja|sh))\b"
)


READERS_OWN = re.compile(r"conf/(user/|.*/(mine|laptop|my_\w+)\.yaml$)")


def test_files_that_are_named_exist() -> None:
    """In documents, comments, docstrings and messages."""
    places = [path for path in text_files() if path.suffix in {".py", ".md", ".yaml", ".toml", ".Dockerfile", ""}]
    places = [path for path in places if ROOT / "tests" not in path.parents]  # which name files that they make
    named = {(of(path), name) for path in places for name in NAMED_FILE.findall(path.read_text(errors="replace"))}
    assert len(named) > 100
    absent = {(place, name) for place, name in named if not (ROOT / name).exists()}
    assert not {(place, name) for place, name in absent if not READERS_OWN.match(name)}


NAMED_FOLDER = re.compile(r"(?<![\w./<\[-])((?:nemo_ext|launchers|recipes)(?:/[a-z0-9_]+)+)/?(?![\w./<*{-]|\.\w)")


def test_folders_that_are_named_exist() -> None:
    places = [
        path
        for path in text_files()
        if path.suffix in {".py", ".md", ".yaml", ""} and ROOT / "tests" not in path.parents
    ]
    named = {(of(path), name) for path in places for name in NAMED_FOLDER.findall(path.read_text(errors="replace"))}
    assert len(named) > 10
    assert not {
        (place, name) for place, name in named if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()
    }


def test_no_module_is_called_after_nothing() -> None:
    vague = re.compile(r"(^|_)(utils?|helpers?|common|managers?|misc)($|_)")
    assert not [
        of(path)
        for path in python_files(*LAYERS)
        if any(vague.search(part) for part in path.with_suffix("").parts[-3:])
    ]


def test_conf_holds_only_short_yaml() -> None:
    files = [path for path in (ROOT / "conf").rglob("*") if path.is_file()]
    assert not [of(path) for path in files if path.suffix != ".yaml"]
    lines = {of(path): len(path.read_text().splitlines()) for path in files}
    assert not {name: count for name, count in lines.items() if count > LONG_YAML.get(name, MAX_YAML_LINES)}
    assert all(lines[name] > MAX_YAML_LINES for name in LONG_YAML), "one of them needs no exception any more"


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 5


def recipe_file(name: str) -> Path:
    (word,) = recipe_files.named([f"+recipe={name}"])
    return recipe_files.RECIPES / f"{word.partition('=')[2]}.yaml"


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_in_the_list(name: str) -> None:
    assert f"`{name}`" in (ROOT / "recipes" / "README.md").read_text(), f"add {name} to recipes/README.md"


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_names_no_cluster(name: str) -> None:
    loaded = OmegaConf.to_container(OmegaConf.load(recipe_file(name)))
    assert isinstance(loaded, dict)
    assert "cluster" not in loaded
    assert not [entry for entry in loaded["defaults"] if "cluster" in str(entry)]
    site = {"partition", "account", "qos", "extra_sbatch", "mounts", "executor"}
    assert not site & {str(key) for key in keys(loaded)}


def keys(node: object) -> list[object]:
    if isinstance(node, dict):
        return [*node, *(key for value in node.values() for key in keys(value))]
    return [key for value in node for key in keys(value)] if isinstance(node, list) else []


def text_files() -> list[Path]:
    """What git has or would take, without binaries."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = []
    for line in listed.stdout.splitlines():
        path = ROOT / line
        if path.is_file() and b"\0" not in path.read_bytes()[:4096]:
            found.append(path)
    return found


def test_no_machine_paths() -> None:
    wrong = []
    for path in text_files():
        if path != Path(__file__):
            lines = enumerate(path.read_text(errors="replace").splitlines(), start=1)
            wrong += [
                f"{of(path)}:{number}: {line.strip()[:100]}" for number, line in lines if MACHINE_PATH.search(line)
            ]
    assert not wrong


@pytest.mark.parametrize("text", ["cd /root/x", '"/work/main"', "/home/me", "a=/root"])
def test_machine_path_is_recognised(text: str) -> None:
    assert MACHINE_PATH.search(text)


COMMAND = re.compile(r"launchers/run\.py([^\n`|#]*)")


def commands() -> list[tuple[str, list[str]]]:
    places = [path for path in text_files() if path.suffix in {".md", ".yaml"} or path.name in {"Makefile", "run"}]
    found = [(of(path), match.split()) for path in places for match in COMMAND.findall(path.read_text())]
    return [(place, words) for place, words in found if any(word.startswith("+recipe=") for word in words)]


def test_written_commands_exist() -> None:
    """A recipe, scale, cluster and root key named in a README or a comment is there; <yours> stands for the reader's."""
    assert {"README.md", "Makefile"} <= {place for place, _ in commands()}
    root = {str(key) for key in OmegaConf.load(ROOT / "conf" / "config.yaml")} | {
        "cluster",
        "server",
        "student",
        "teacher",
        "student_server",
        "prompt",
        "stages",
    }
    wrong = []
    for place, words in commands():
        for word in words:
            key, equals, value = word.strip("().,;'\"").partition("=")
            if not equals or "<" in word:
                continue
            group = key.lstrip("+")
            if group == "recipe":
                recipe_file(value)  # refuses a name that is none
            elif group in {"scale", "cluster"}:
                if not (ROOT / "conf" / group / f"{value}.yaml").is_file():
                    wrong.append(f"{place}: {word}")
            elif group.split(".")[0].split("@")[0] not in root | {"model", "hydra"}:
                wrong.append(f"{place}: {word}")
    assert not wrong
