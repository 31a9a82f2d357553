"""Processes in enroot: what `enroot start` is told, how root file systems are made once, and what is refused before.

Enroot is not among the tests' programs: a stand-in makes folders of images and runs commands where they are, through the
same --rc script.
"""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from launchers.executors import enroot
from launchers.here.display import Display
from launchers.here.processes import Place, TaskFailed
from launchers.planning.plan import PlannedStage
from recipes.stage import Process, Resources, main_process
from tests.conftest import ROOT
from tests.launchers.process_stages import Left, bare_stage, process_stage, python

GOLDEN = Path(__file__).parent / "golden"
SITE = enroot.Config(
    images={"nemo": "/shared/images/train-1f2e.sqsh"},
    mounts=["/models:/models:ro", "/data"],
    env={"HF_HOME": "/models/it's here"},
    env_from=["HF_TOKEN"],
    extra_args=["--root"],
)


def test_command_is_the_golden_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a wanted change: UPDATE_GOLDEN=1 pytest tests/launchers/test_enroot.py, and read the diff."""
    monkeypatch.setattr("launchers.planning.images._code_version", lambda: "1f2e3d4c5b6a")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    process = main_process("/runs/r/train/part0/config.yaml", ranks=8)
    stage = bare_stage(Path("/runs/r/train"), process, resources=Resources(gpus=4, image="nemo"), name="train")
    argv = enroot.command(SITE, stage, process, Place(3, ("0", "2", "4", "6"), 29500), "recipe-nemo-0123456789ab")
    text = "".join(
        f" \\\n  {shlex.quote(word)}" if word.startswith("--") else f" {shlex.quote(word)}" for word in argv
    )
    text = text.strip().replace(str(ROOT), "/repo") + "\n"
    path = GOLDEN / "enroot_train.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    assert "hf_secret" not in text


def test_the_example_cluster_has_every_key_and_its_default() -> None:
    example = OmegaConf.load(ROOT / "conf" / "cluster" / "enroot.yaml")
    structured = OmegaConf.structured(enroot.Config)
    assert OmegaConf.to_object(OmegaConf.merge(structured, example)) == enroot.Config()
    assert set(example) == set(structured)


STAND_IN = """#!{python}
import json, os, pathlib, sys
words, options = sys.argv[2:], []
state = pathlib.Path({state!r})
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
def value(name):
    return [words[i + 1] for i, word in enumerate(words) if word == name]
if sys.argv[1] == "list":
    print("\\n".join(path.name for path in (state / "data").iterdir()))
if sys.argv[1] == "remove":
    import shutil; shutil.rmtree(state / "data" / words[-1])
if sys.argv[1] == "create":
    (state / "data" / value("--name")[0]).mkdir()
    if pathlib.Path(words[-1]).read_text() == "cut off":
        sys.exit("[ERROR] Failed to read the file system")
if sys.argv[1] == "start":
    at = next(i for i, word in enumerate(words) if word.startswith("recipe-"))
    rootfs = state / "data" / words[at]
    env = dict(each.split("=", 1) if "=" in each else (each, os.environ[each]) for each in value("--env"))
    command = [str(rootfs) + word if word == "/.recipe-complete" else word for word in words[at + 1 :]]
    command[0] = {python!r} if command[0] == "python" else command[0]
    assert rootfs.is_dir() and os.environ["ENROOT_MOUNT_HOME"] == "n"
    os.execve("/bin/sh", ["/bin/sh", value("--rc")[0], *command], env | {{"PATH": "/usr/bin:/bin"}})
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder, with the stand-in first on PATH."""
    folder = tmp_path / "stand-in"
    (folder / "data").mkdir(parents=True)
    program = folder / "enroot"
    program.write_text(STAND_IN.format(python=sys.executable, state=str(folder)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(folder))
    return folder


def calls(state: Path, kind: str) -> list[list[str]]:
    every = [json.loads(line) for line in (state / "calls").read_text().splitlines()]
    return [words for words in every if words[0] == kind]


def image(tmp_path: Path, content: str = "squashed") -> dict[str, str]:
    path = tmp_path / "base.sqsh"
    path.write_text(content)
    return {"base": str(path)}


def submit(planned: PlannedStage, **config: object) -> None:
    enroot.submit(enroot.Config(**config), [planned], Display())  # type: ignore[arg-type]


def test_a_stage_runs_with_its_ranks_services_and_secrets(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_behind: Left
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    monkeypatch.setenv("SHELL_ONLY", "1")
    ready = tmp_path / "run" / "part0" / "server-0.json"
    serve = f"import pathlib, time\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(600)"
    main = f"""
import json, os, pathlib, time
while not pathlib.Path({str(ready)!r}).exists(): time.sleep(0.01)
names = ("RANK", "WORLD_SIZE", "MY_TOKEN", "MINE", "SHELL_ONLY", "RECIPE_IMAGE", "NVIDIA_VISIBLE_DEVICES")
told = [os.environ.get(name) for name in names]
pathlib.Path({str(ready.parent)!r}, "rank" + os.environ["RANK"]).write_text(json.dumps([*told, os.getcwd()]))
"""
    planned = process_stage(
        tmp_path / "run", python("server-0", serve, service=True, ready_file=str(ready)), python("main", main, ranks=2)
    )
    submit(planned, env={"MINE": "it's mine"}, env_from=["MY_TOKEN"], images=image(tmp_path))
    for rank in "01":
        told = json.loads((ready.parent / f"rank{rank}").read_text())
        assert told == [rank, "2", "s3cret", "it's mine", None, "base", "void", str(ROOT)]
    assert "s3cret" not in (state / "calls").read_text() + (ready.parent / "logs" / "main-0.log").read_text()
    assert not left_behind()


def test_an_exit_code_is_the_commands_own(state: Path, tmp_path: Path) -> None:
    planned = process_stage(tmp_path / "run", python("main", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(TaskFailed, match="exit code -9"):
        submit(planned, images=image(tmp_path))


def test_a_root_file_system_is_made_once_per_content(state: Path, tmp_path: Path) -> None:
    planned, images = process_stage(tmp_path / "run", python("main", "pass")), image(tmp_path)
    submit(planned, images=images)
    submit(planned, images=images)
    assert len(calls(state, "create")) == 1 and not calls(state, "remove")
    os.utime(images["base"], ns=(1, 1))
    submit(planned, images=images)
    assert len(calls(state, "create")) == 2, "written anew, it is another image"


def test_one_that_was_cut_off_is_made_anew(state: Path, tmp_path: Path) -> None:
    planned = process_stage(tmp_path / "run", python("main", "pass"))
    images = image(tmp_path, "cut off")
    with pytest.raises(ValueError, match="enroot create: .*Failed to read"):
        submit(planned, images=images)
    left = list((state / "data").iterdir())
    assert len(left) == 1, "enroot leaves what it has unpacked so far"
    stat = Path(images["base"]).stat()
    Path(images["base"]).write_text("squashe")  # as long, as old: repaired in place
    os.utime(images["base"], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    submit(planned, images=images)
    assert calls(state, "remove") == [["remove", "--force", left[0].name]]
    assert (left[0] / ".recipe-complete").exists()


def refusal(planned: PlannedStage, **config: object) -> str:
    with pytest.raises(ValueError) as caught:
        enroot.check(enroot.Config(**config), [planned])  # type: ignore[arg-type]
    return str(caught.value)


def test_check_names_what_is_missing(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned, there = bare_stage(tmp_path / "r" / "s", python("main", "pass")), image(tmp_path)
    enroot.check(enroot.Config(images=there), [planned])
    said = refusal(planned)
    assert (
        "enroot import --output base.sqsh docker://nvcr.io#nvidia/nemo:" in said and "++cluster.images.base=" in said
    )
    said = refusal(planned, images={"base": "/no/such.sqsh"}, mounts=["/no/folder"], env_from=["NO_SUCH_TOKEN"])
    assert [word in said for word in ("/no/such.sqsh", "/no/folder", "NO_SUCH_TOKEN")] == [True] * 3
    assert said.startswith("3 things to change")
    assert "has a line break" in refusal(planned, images=there, env={"A": "1\n2"})
    spaced = bare_stage(tmp_path / "a b" / "s", python("main", "pass"))
    assert "use another run_dir=" in refusal(spaced, images=there)
    wide = bare_stage(tmp_path / "s", Process("main", ["python"]), resources=Resources(nodes=2))
    assert "needs 2 node(s)" in refusal(wide, images=there)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "there is no enroot on PATH" in refusal(planned, images=there)
