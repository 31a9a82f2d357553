"""Processes in Docker: what `docker run` is told, what is refused before it, and how containers end.

Most of it with a stand-in for docker's client that runs the command where it is; one stage in real containers where a
daemon can be started.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf

from launchers.executors import docker
from launchers.here import containers, processes
from launchers.here.display import Display
from launchers.here.processes import Place, TaskFailed
from launchers.planning.plan import PlannedStage
from recipes.stage import Process, Resources, main_process
from tests.conftest import ROOT
from tests.containers.docker_daemon import BORROWED, docker_daemon, import_base
from tests.launchers.process_stages import Left, bare_stage, gone, process_stage, python, wait_until

GOLDEN = Path(__file__).parent / "golden"
SITE = docker.Config(
    user="1000:1000",
    images={"nemo": "registry.example.org/llm/train:1f2e@sha256:" + "ab" * 32},
    mounts=["/models:/models:ro", "/data"],
    env={"HF_HOME": "/models/it's here", "NCCL_DEBUG": "WARN"},
    env_from=["HF_TOKEN"],
    extra_args=["--device=/dev/infiniband"],
)
SMALL = docker.Config(user="1000:1000", ulimits=[], check_versions=False, python="/opt/venv/bin/python")
TRAIN = main_process("/runs/r/train/part0/config.yaml", ranks=8)
SERVER = Process("server-0", ["python", "-m", "nemo_ext.serving.serve", "c.yaml"], service=True)


def lines(argv: list[str]) -> str:
    """One option a line, as a person can read, compare and run it."""
    text = "".join(
        f" \\\n  {shlex.quote(word)}" if word.startswith("--") else f" {shlex.quote(word)}" for word in argv
    )
    return text.strip().replace(str(ROOT), "/repo") + "\n"


@pytest.mark.parametrize(
    ("name", "config", "process", "resources", "place"),
    [
        ("docker_train", SITE, TRAIN, Resources(gpus=8, image="nemo"), Place(3, ("0", "2", "4", "6"), 29500)),
        ("docker_server", SMALL, SERVER, Resources(image="vllm"), Place()),
    ],
)
def test_command_is_the_golden_one(
    name: str,
    config: docker.Config,
    process: Process,
    resources: Resources,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a wanted change: UPDATE_GOLDEN=1 pytest tests/launchers/test_docker.py, and read the diff."""
    monkeypatch.setattr("launchers.planning.images._code_version", lambda: "1f2e3d4c5b6a")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    stage = bare_stage(Path("/runs/r/train"), process, resources=resources, name="train")
    text = lines(docker.command(config, stage, stage.tasks[0], process, place))
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    assert "hf_secret" not in text


def test_container_names_differ_where_folders_do() -> None:
    one, other = (bare_stage(Path(f"/runs/{run}/train"), TRAIN).tasks[0] for run in ("a", "b"))
    names = {
        docker.container_name(task, process, rank)
        for task in (one, other)
        for process in (TRAIN, SERVER)
        for rank in (0, 1)
    }
    assert len(names) == 8
    odd = bare_stage(Path("/runs/ü ;$(x)/" + "long" * 40), TRAIN).tasks[0]
    assert docker.re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,120}", docker.container_name(odd, TRAIN, 0))


def test_the_users_own_settings_win() -> None:
    stage = bare_stage(Path("/runs/r/s"), SERVER)
    env = containers.variables(docker.Config(env={"HOME": "/h", "OMP_NUM_THREADS": "4"}), stage, SERVER, Place())
    assert env["HOME"] == "/h" and env["OMP_NUM_THREADS"] == "4" and "RANK" not in env
    assert docker._identity(docker.Config())[1] == f"{os.getuid()}:{os.getgid()}"


def test_gpus_count_from_0_in_a_container_that_has_no_others() -> None:
    """Whatever the launching shell or cluster.env calls them."""
    stage, config = bare_stage(Path("/runs/r/s"), SERVER), docker.Config(env={"CUDA_VISIBLE_DEVICES": "2,5"})
    without = docker.command(config, stage, stage.tasks[0], SERVER, Place())
    assert not [word for word in without if "CUDA_VISIBLE_DEVICES" in word or word == "--gpus"]
    argv = docker.command(config, stage, stage.tasks[0], SERVER, Place(devices=("2", "5")))
    assert argv[argv.index("--gpus") + 1] == '"device=2,5"' and "CUDA_VISIBLE_DEVICES=0,1" in argv


def test_the_example_cluster_has_every_key_and_its_default() -> None:
    example = OmegaConf.load(ROOT / "conf" / "cluster" / "docker.yaml")
    structured = OmegaConf.structured(docker.Config)
    assert OmegaConf.to_object(OmegaConf.merge(structured, example)) == docker.Config()
    assert set(example) == set(structured)


STAND_IN = """#!{python}
import json, os, pathlib, sys
words = sys.argv[1:]
state = pathlib.Path({state!r})
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if words[0] == "version" and (state / "no-daemon").exists():
    sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
if words[:2] == ["image", "inspect"]:
    sys.exit(0 if "absent" not in words[-1] else "Error: No such image")
if words[0] == "ps":
    print("\\n".join(path.name for path in state.glob("left-*")))
if words[0] in ("rm", "stop"):
    for path in state.glob("left-*"):
        if words[0] == "rm":
            path.unlink()
if words[0] == "inspect":
    print("/" + words[-1], os.getppid())
if words[0] == "run":
    if "memlock=-1" in words and (state / "no-memlock").exists():
        print("docker: Error response from daemon: error setting rlimit type 8: operation not permitted", file=sys.stderr)
        sys.exit("\\nRun 'docker run --help' for more information")
    for i, word in enumerate(words):
        if word == "--volume":  # as the daemon does, and as root
            pathlib.Path(words[i + 1].split(":")[0]).mkdir(parents=True, exist_ok=True)
    program = words[words.index("--entrypoint") + 1]
    rest = words[words.index("--entrypoint") + 3 :]
    given = [words[i + 1] for i, word in enumerate(words) if word == "--env"]
    env = dict(each.split("=", 1) if "=" in each else (each, os.environ[each]) for each in given)
    program = sys.executable if program == "python" else program
    os.execvpe(program, [program, *rest], env)
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder, with the stand-in first on PATH."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(STAND_IN.format(python=sys.executable, state=str(folder)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def calls(state: Path, kind: str) -> list[list[str]]:
    every = [json.loads(line) for line in (state / "calls").read_text().splitlines()]
    return [words for words in every if words[0] == kind]


def submit(planned: PlannedStage, **config: object) -> None:
    docker.submit(docker.Config(**config), [planned], Display())  # type: ignore[arg-type]


def test_a_stage_runs_with_its_ranks_services_and_secrets(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_behind: Left
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    ready = tmp_path / "run" / "part0" / "server-0.json"
    serve = f"import pathlib, time\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(600)"
    main = f"""
import json, os, pathlib, time
while not pathlib.Path({str(ready)!r}).exists(): time.sleep(0.01)
kept = {{key: os.environ.get(key) for key in ("RANK", "WORLD_SIZE", "MY_TOKEN", "MINE", "LAUNCHER_PID", "RECIPE_IMAGE", "PATH")}}
pathlib.Path({str(ready.parent)!r}, "rank" + os.environ["RANK"]).write_text(json.dumps(kept))
print(len(os.environ["MY_TOKEN"]))
"""
    planned = process_stage(
        tmp_path / "run", python("server-0", serve, service=True, ready_file=str(ready)), python("main", main, ranks=2)
    )
    submit(planned, env={"MINE": "yes"}, env_from=["MY_TOKEN"])
    told = [json.loads((ready.parent / f"rank{rank}").read_text()) for rank in range(2)]
    assert [each["RANK"] for each in told] == ["0", "1"] and told[0]["WORLD_SIZE"] == "2"
    assert told[0]["MY_TOKEN"] == "s3cret" and told[0]["MINE"] == "yes" and told[0]["RECIPE_IMAGE"] == "base"
    assert told[0]["LAUNCHER_PID"] is None and told[0]["PATH"] is None, "the shell's environment stays outside"
    assert len({docker_name(words) for words in calls(state, "run")}) == 3
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert {path.name for path in written if "s3cret" in path.read_text()} == {"rank0", "rank1"}, "where main wrote it"
    assert "$ docker run --name " in (ready.parent / "logs" / "main-0.log").read_text(), (
        "a log begins with its command"
    )
    assert not left_behind()


def docker_name(words: list[str]) -> str:
    return words[words.index("--name") + 1]


def test_a_failed_container_shows_its_last_lines(state: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match=r"fake/part0: exit code 3\.[\s\S]*no such row"):
        submit(process_stage(tmp_path / "run", python("main", "import sys; print('no such row'); sys.exit(3)")))


def test_containers_of_a_killed_launcher_are_stopped_then_removed_at_the_next_start(
    state: Path, tmp_path: Path
) -> None:
    planned = process_stage(tmp_path / "run", python("main", "pass"))
    (state / "left-1").touch()
    submit(planned)
    order = [words[0] for words in map(json.loads, (state / "calls").read_text().splitlines())]
    assert [kind for kind in order if kind != "inspect"][:4] == ["ps", "stop", "rm", "run"]
    assert calls(state, "ps")[0][-1] == f"label=megatron-recipes.run={tmp_path}"
    assert not list(state.glob("left-*"))


def test_a_stubborn_container_is_removed(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killing the client alone would leave it running."""
    monkeypatch.setattr(processes, "STOP_S", 0.3)
    ready = tmp_path / "ready"
    stubborn = f"""
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({str(state / "left-server")!r}).touch()
pathlib.Path({str(ready)!r}).touch()
time.sleep(600)
"""
    main = f"import pathlib, time\nwhile not pathlib.Path({str(ready)!r}).exists(): time.sleep(0.01)"
    planned = process_stage(tmp_path / "run", python("server-0", stubborn, service=True), python("main", main))
    submit(planned)
    assert calls(state, "rm")[-1] == ["rm", "--force", "left-server"]
    assert calls(state, "ps")[-1][-1] == f"label=megatron-recipes.task={planned.tasks[0].folder}"


def test_a_killed_launcher_takes_its_clients_with_it(state: Path, tmp_path: Path) -> None:
    """`docker run` passes the SIGTERM on to its container."""
    process_stage(tmp_path / "run", python("main", "pass"))
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.launchers.process_stages import process_stage, python
from tests.launchers.test_docker import submit
submit(process_stage(Path({str(tmp_path / "run")!r}), python("main", "import time; print('up', flush=True); time.sleep(600)")))
"""
    launcher = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    log = tmp_path / "run" / "part0" / "logs" / "main.log"
    wait_until(lambda: log.is_file() and "up" in log.read_text().split())
    clients = psutil.Process(launcher.pid).children(recursive=True)
    assert clients
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    wait_until(lambda: all(gone(client) for client in clients))


def refusal(planned: PlannedStage, **config: object) -> str:
    with pytest.raises(ValueError) as caught:
        docker.check(docker.Config(**config), [planned])  # type: ignore[arg-type]
    return str(caught.value)


def test_check_accepts_and_leaves_nothing(state: Path, tmp_path: Path) -> None:
    planned = bare_stage(tmp_path / "run" / "s", python("main", "pass"))
    docker.check(docker.Config(mounts=[str(tmp_path)]), [planned])
    assert not (tmp_path / "run").exists(), "docker makes a folder that is mounted and not there, as root"
    assert len(calls(state, "run")) == 1


def test_check_names_what_is_missing(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = bare_stage(tmp_path / "s", python("main", "pass"))
    said = refusal(planned, mounts=["/no/such/folder:/data", "relative:/x"], env_from=["NO_SUCH_TOKEN"])
    assert (
        said.startswith("3 things to change")
        and "/no/such/folder" in said
        and "NO_SUCH_TOKEN" in said
        and "'relative:/x'" in said
    )
    said = refusal(planned, images={"base": "example.org/absent:1"})
    assert (
        "example.org/absent:1 is not here; docker pull example.org/absent:1, or python containers/build.py train or cpu"
        in said
    )
    assert "docker takes references only" in refusal(planned, images={"base": "/a.sqsh"})
    assert "has no such" not in said
    (state / "no-memlock").touch()
    said = refusal(planned)
    assert "starts here: docker: Error response from daemon: error setting rlimit type 8" in said
    assert said.endswith("cluster.ulimits=[]")
    docker.check(docker.Config(ulimits=[]), [planned])
    (state / "no-daemon").touch()
    assert refusal(planned).startswith("docker cannot be used here: Cannot connect")
    needy = bare_stage(tmp_path / "s", python("main", "pass"), resources=Resources(gpus=2))
    (state / "no-daemon").unlink()
    assert "stage fake needs 1 node(s) x 2 GPUs" in refusal(needy, gpus=1)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "there is no docker on PATH" in refusal(planned)


def test_an_image_with_an_old_python_or_without_omegaconf_is_refused(state: Path, tmp_path: Path) -> None:
    bare = state / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    said = refusal(bare_stage(tmp_path / "s", python("main", "pass")), python=str(bare))
    assert "No module named 'omegaconf'" in said and "python containers/build.py" in said


def test_a_stage_runs_in_real_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service on the machine's network, two ranks, as this user, with its memory counted; and nothing left."""
    with docker_daemon() as env:
        for key, value in env.items():
            monkeypatch.setenv(key, value)
        import_base("local/base:1", env)
        config = docker.Config(images={"base": "local/base:1"}, mounts=BORROWED, python=sys.executable)
        folder = tmp_path / "run" / "part0"
        ready, counted = folder / "server-0.json", folder / "counted"
        sample = processes.RunningTask._sample_memory

        def sample_and_tell(task: processes.RunningTask) -> None:
            sample(task)
            if task.peak_memory > 2 * 160_000_000:
                counted.touch()

        monkeypatch.setattr(processes.RunningTask, "_sample_memory", sample_and_tell)
        serve = f"import pathlib, socket, time\ns = socket.create_server(('127.0.0.1', 0))\npathlib.Path({str(ready)!r}).write_text(str(s.getsockname()[1]))\ntime.sleep(600)"
        main = f"""
import os, pathlib, socket, time
import numpy
ready = pathlib.Path({str(ready)!r})
while not (ready.exists() and ready.read_text()): time.sleep(0.01)
socket.create_connection(("127.0.0.1", int(ready.read_text()))).close()
kept = numpy.ones(20_000_000)
while not pathlib.Path({str(counted)!r}).exists(): time.sleep(0.05)
pathlib.Path({str(folder)!r}, "rank" + os.environ["RANK"]).write_text(f"{{os.getuid()}} {{os.environ['HOME']}} {{os.getcwd()}}")
"""
        planned = process_stage(
            tmp_path / "run",
            python("server-0", serve, service=True, ready_file=str(ready)),
            python("main", main, ranks=2),
        )
        config.ulimits, config.extra_args = [], ["--device=/dev/no-such-device"]
        with pytest.raises(ValueError, match=r"no container of local/base:1 starts here: .*/dev/no-such-device"):
            docker.check(config, [planned])
        config.extra_args = []
        docker.check(config, [planned])
        docker.submit(config, [planned], Display())
        assert [(folder / f"rank{rank}").read_text() for rank in range(2)] == [f"{os.getuid()} /tmp {ROOT}"] * 2
        assert json.loads((folder / "usage.json").read_text())["peak_memory_bytes"] > 2 * 160_000_000
        assert docker.docker("ps", "--all", "--quiet") == ""
