"""The Slurm executor without Slurm: golden scripts, refusals, submission against stand-in clients, and the bash itself."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from launchers import sbatch, slurm_client
from launchers.display import Display
from launchers.executors import slurm
from launchers.plan import PlannedStage, Task
from nemo_ext.files import write_json_atomic
from nemo_ext.model import Model
from recipes import rank_env
from recipes.served import ServedStage, server_processes
from recipes.stage import Process, Resources, Stage, main_process

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"
RUN = Path("/runs/sft")


@dataclass(kw_only=True)
class FakeConfig(Stage):
    ranks: int = 0
    server: dict[str, Any] = field(default_factory=dict)


def stage(
    name: str,
    *processes: Process,
    run: Path = RUN,
    after: tuple[str, ...] = (),
    tasks: int = 1,
    resources: Resources | None = None,
) -> PlannedStage:
    """A stage whose processes may name their task's folder as `@`."""

    def made(cfg: FakeConfig, config_path: str) -> list[Process]:
        def here(text: str) -> str:
            return text.replace("@", cfg.output_dir)

        return [
            replace(
                p,
                argv=[here(word) for word in p.argv],
                ready_file=p.ready_file and here(p.ready_file),
                ranks=cfg.ranks or p.ranks,
            )
            for p in processes
        ]

    module: Any = SimpleNamespace(Config=FakeConfig, processes=made)
    parts = [f"shard_{index}" for index in range(tasks)] if tasks > 1 else [""]
    contents = [
        {"uses": "fake", "name": name, "output_dir": str(run / name / part), "shard": i}
        for i, part in enumerate(parts)
    ]
    planned = [Task(name, part, content, module) for part, content in zip(parts, contents, strict=True)]
    return PlannedStage(name, "fake", list(after), resources or Resources(), planned)


def train() -> PlannedStage:
    resources = Resources(nodes=2, gpus=8, image="nemo", time="12:00:00")
    return stage("train", main_process("@/config.yaml", ranks=16), resources=resources)


def solve(tasks: int = 3) -> PlannedStage:
    servers = [
        Process(
            f"server-{i}",
            ["python", "-m", "serve", f"--file=@/server-{i}.json"],
            service=True,
            ready_file=f"@/server-{i}.json",
            first_node=i,
        )
        for i in range(2)
    ]
    return stage(
        "solve",
        *servers,
        main_process("@/config.yaml"),
        tasks=tasks,
        resources=Resources(nodes=2, gpus=8, image="trtllm"),
    )


def teacher() -> PlannedStage:
    """Two servers over two nodes each, as a stage with server=trtllm_405b_bf16 has them."""
    resources = Resources(nodes=4, gpus=8, image="trtllm")
    server = {"kind": "trtllm", "tp_size": 8, "pp_size": 2, "nodes": 2, "replicas": 2}
    model = Model(name="teacher", hf_path="/models/teacher", context_length=8192)
    cfg = ServedStage(uses="x", name="teacher", output_dir="@", model=model, server=server, resources=resources)
    return stage("teacher", *server_processes(cfg, "@/config.yaml"), resources=resources)


def other_image(kind: str) -> PlannedStage:
    planned = solve(1)
    planned.tasks[0].content["server"] = {"kind": kind}
    return planned


SITE = slurm.Config(
    account="llm",
    partition="gpu",
    qos="normal",
    python="/opt/venv/bin/python",
    setup=["source /etc/profile", "module load cuda"],
    env={"HF_HOME": "/shared/it's here", "NCCL_DEBUG": "WARN"},
    env_from=["HF_TOKEN"],
    extra_sbatch={"exclusive": "", "mem": "0", "gpus-per-node": None, "gres": "gpu:8"},
)
PYXIS = slurm.Config(
    container="pyxis",
    images={"trtllm": "registry.example.org/trtllm:1"},
    mounts=["/data:/data:ro"],
    max_parallel_tasks=2,
)


@pytest.mark.parametrize(
    ("name", "config", "planned"),
    [("train", SITE, train()), ("solve_array", PYXIS, solve()), ("teacher", PYXIS, teacher())],
)
def test_script_is_the_golden_one(name: str, config: slurm.Config, planned: PlannedStage) -> None:
    """After a wanted change: UPDATE_GOLDEN=1 pytest tests/launchers/test_slurm.py, and read the diff."""
    text = slurm.script(config, planned).replace(str(ROOT), "/repo")
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()
    subprocess.run(["bash", "-n", path], check=True, timeout=20)


def test_tasks_that_differ_in_more_than_their_folder_get_a_case() -> None:
    planned = stage("train", main_process("@/config.yaml", ranks=2), tasks=3)
    planned.tasks[1].content["ranks"] = 1
    text = slurm.script(slurm.Config(), planned)
    assert "  0|2)\n" in text and "  1)\n" in text and text.count("recipes.run_stage") == 2


@pytest.mark.parametrize(
    ("config", "planned", "message"),
    [
        (slurm.Config(qos="a\nrm -rf /"), train(), "one line of text"),
        (slurm.Config(extra_sbatch={"comment=x --hold": "y"}), train(), "long name"),
        (slurm.Config(env={"A;B": "1"}), train(), "no name of an environment variable"),
        (slurm.Config(env_from=["A=secret"]), train(), "no name of an environment variable"),
        (slurm.Config(), stage("a", main_process("x"), run=Path("/runs/50%")), "use another run_dir="),
        (slurm.Config(), stage("a", main_process("x", 3), resources=Resources(nodes=2)), "3 ranks"),
        (
            slurm.Config(container="pyxis"),
            stage("a", main_process("x"), resources=Resources(image="nope")),
            "there are: base",
        ),
        (PYXIS, other_image("vllm"), r"solve\.resources\.image=trtllm, and its server is vllm; use stages\.solve"),
        (
            slurm.Config(),
            stage(
                "a",
                Process("s", ["x"], service=True, first_node=1, nodes=2),
                main_process("x"),
                resources=Resources(nodes=2),
            ),
            r"s needs 3 nodes, and the stage has resources\.nodes=2",
        ),
    ],
)
def test_script_refuses(config: slurm.Config, planned: PlannedStage, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slurm.script(config, planned)


def test_shards_are_typed_once() -> None:
    planned = solve(tasks=500)
    made, calls = planned.tasks[0].module.processes, []
    planned.tasks[0].module.processes = lambda cfg, path: calls.append(path) or made(cfg, path)
    slurm.script(PYXIS, planned)
    assert len(calls) <= 2


def test_array_ranges() -> None:
    assert sbatch.array([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


def test_the_example_cluster_is_typed_and_names_no_unknown_key() -> None:
    example = OmegaConf.load(ROOT / "conf" / "cluster" / "slurm.yaml")
    typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(slurm.Config), example))
    assert typed == slurm.Config()
    with pytest.raises(ValidationError):
        OmegaConf.merge(OmegaConf.structured(slurm.Config), {"gpus_per_node": "many"})


# Stand-ins for Slurm's clients: each writes its argv to $CALLS; answers come from files beside it.
CLIENT = """#!/bin/bash
printf '%s\\n' "${0##*/} $*" >>"$CALLS"
answer=${0}.answer
[ -x "$answer" ] && exec "$answer" "$@"
[ -f "$answer" ] && cat "$answer"
exit 0
"""


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.bin, self.calls_file = folder / "bin", folder / "calls"
        self.bin.mkdir()
        for name in ("sbatch", "scancel", "squeue", "scontrol"):
            self.script(name, CLIENT)
        count = 'n=$(cat "$0.n" 2>/dev/null || echo 100); echo $((n+1)) >"$0.n"; echo "$n;lab"'
        self.script("sbatch.answer", f"#!/bin/bash\n{count}\n")

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, name: str, text: str) -> None:
        (self.bin / f"{name}.answer").write_text(text)

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(made.calls_file))
    return made


def chain(run: Path) -> list[PlannedStage]:
    return [
        stage("prepare", main_process("@/config.yaml"), run=run),
        stage("solve", main_process("@/config.yaml"), run=run, after=("prepare",), tasks=3),
        stage("train", main_process("@/config.yaml"), run=run, after=("prepare", "solve")),
    ]


def finish(task: Task) -> None:
    done = {"config_hash": task.config_hash, "inputs": [], "outputs": []}
    write_json_atomic(task.folder / "_DONE", done)
    write_json_atomic(task.folder / "manifest.json", {"rows_out": 1, "dropped": {}, "figures": {}})


def test_submit_chains_jobs_and_records_them(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    slurm.submit(slurm.Config(), chain(run), Display())
    prepare, solve_call, train_call = cluster.calls
    assert prepare == f"sbatch --parsable {run}/prepare/submit.sh"
    assert solve_call.startswith("sbatch --parsable --dependency=afterok:100 --kill-on-invalid-dep=yes --array=0-2%8 ")
    assert "--dependency=afterok:100:101 " in train_call
    jobs = json.loads((run / "jobs.json").read_text())
    assert [(name, jobs[name]["job"]) for name in jobs] == [("prepare", "100"), ("solve", "101"), ("train", "102")]
    assert (run / "train" / "submit.sh").read_text() == slurm.script(slurm.Config(), chain(run)[2])
    assert (run / "train" / "logs").is_dir()


def test_finished_stages_and_tasks_are_not_submitted(cluster: Cluster, tmp_path: Path) -> None:
    stages = chain(tmp_path / "run")
    for task in [*stages[0].tasks, stages[1].tasks[1]]:
        finish(task)
    slurm.submit(slurm.Config(), stages, Display())
    solve_call, train_call = cluster.calls
    assert "--dependency" not in solve_call and "--array=0,2%8" in solve_call
    assert "--dependency=afterok:100 " in train_call


def test_a_refused_stage_cancels_those_before_it(cluster: Cluster, tmp_path: Path) -> None:
    refuse = '#!/bin/bash\ncase "$*" in *train*) echo "sbatch: error: invalid account" >&2; exit 1;; esac; echo 7\n'
    cluster.script("sbatch.answer", refuse)
    with pytest.raises(ValueError, match="invalid account"):
        slurm.submit(slurm.Config(), chain(tmp_path / "run"), Display())
    assert cluster.calls[-1] == "scancel 7 7"


def test_a_client_that_hangs_is_reported(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.script("sbatch.answer", "#!/bin/bash\nexec sleep 30\n")
    monkeypatch.setattr(slurm_client, "CLIENT_TIMEOUT_S", 0.3)
    with pytest.raises(ValueError, match="sbatch did not answer"):
        slurm.submit(slurm.Config(), chain(tmp_path / "run")[:1], Display())


def test_check_refuses_what_cannot_run_here(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = chain(tmp_path / "run")
    slurm.check(slurm.Config(), stages)
    with pytest.raises(ValueError, match="may be none or pyxis"):
        slurm.check(slurm.Config(container="docker"), stages)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="HF_TOKEN, not set here"):
        slurm.check(slurm.Config(env_from=["HF_TOKEN"]), stages)
    with pytest.raises(ValueError, match=r"train\.resources\.gpus=8, but a node here has 4"):
        slurm.check(slurm.Config(gpus_per_node=4), [train()])
    cluster.answer("scontrol", "MaxArraySize            = 2\n")
    with pytest.raises(ValueError, match="solve has 3 tasks, but job arrays here have up to 2"):
        slurm.check(slurm.Config(), stages)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no sbatch on PATH"):
        slurm.check(slurm.Config(), stages)


def test_check_refuses_a_stage_that_is_queued_already(cluster: Cluster, tmp_path: Path) -> None:
    stages = chain(tmp_path / "run")
    slurm.submit(slurm.Config(), stages, Display())
    cluster.answer("squeue", "55\n101\n")
    with pytest.raises(ValueError, match="stage solve is job 101, which has not ended"):
        slurm.check(slurm.Config(), stages)
    cluster.answer("squeue", "55\n")
    slurm.check(slurm.Config(), stages)


# The bash, with an srun that drops its options and runs the command here.
SRUN = """#!/bin/bash
log=/dev/null
while [[ $1 == -* ]]; do case $1 in --output=*) log=${1#*=} ;; esac; shift; done
exec env SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 "$@" >>"${log//%t/0}" 2>&1
"""


def run_script(cluster: Cluster, planned: PlannedStage, **env: str) -> "subprocess.CompletedProcess[str]":
    cluster.script("srun", SRUN)
    cluster.script("scontrol.answer", '#!/bin/bash\n[ "$2" = hostnames ] && echo node7\nexit 0\n')
    text = slurm.script(slurm.Config(python=sys.executable), planned)
    environment = {**os.environ, "SLURM_JOB_ID": "20041", "SLURM_JOB_NODELIST": "node7", **env}
    return subprocess.run(
        ["bash", "-c", text], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def python(code: str, *args: str, **kwargs: bool | str) -> Process:
    return Process("server" if kwargs.get("service") else "main", ["python", "-c", code, *args], **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("20", False)])
def test_code_85_puts_the_job_back_a_bounded_number_of_times(
    cluster: Cluster, tmp_path: Path, restarts: str, requeued: bool
) -> None:
    planned = stage("train", python("raise SystemExit(85)"), run=tmp_path)
    assert run_script(cluster, planned, SLURM_RESTART_COUNT=restarts).returncode == 85
    assert ("scontrol requeue 20041" in cluster.calls) == requeued


def test_a_failed_main_gives_the_job_its_code_and_ends_the_service(cluster: Cluster, tmp_path: Path) -> None:
    wait = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    fail = (
        "import os, sys, time\nwhile not (os.path.exists(sys.argv[1]) and open(sys.argv[1]).read()): time.sleep(0.05)\n"
        "raise SystemExit(3)"
    )
    pid_file = str(tmp_path / "pid")
    planned = stage("solve", python(wait, pid_file, service=True), python(fail, pid_file), run=tmp_path)
    done = run_script(cluster, planned)
    assert done.returncode == 3 and not any("requeue" in call for call in cluster.calls)
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path(pid_file).read_text()), 0)


def test_a_dead_service_ends_main_and_leaves_its_last_words(cluster: Cluster, tmp_path: Path) -> None:
    server = python("raise SystemExit('out of memory')", service=True)
    done = run_script(cluster, stage("solve", server, python("import time; time.sleep(60)"), run=tmp_path))
    assert done.returncode == 1
    assert "service server ended before main" in done.stdout and "out of memory" in done.stdout


def test_hostile_words_and_folders_arrive_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / 'it\'s $(touch pwned) `x` "q"'
    words = ["$HOME", "a b", "", "';touch pwned;'", "*", "@/x y"]
    show = "import json, os, sys; json.dump([sys.argv[2:], dict(os.environ)], open(sys.argv[1], 'w'))"
    stale = run / "solve" / "server.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("stale")
    server = Process("server", ["sleep", "60"], service=True, ready_file="@/server.json")
    planned = stage("solve", server, python(show, "@/seen.json", *words), run=run)
    assert run_script(cluster, planned).returncode == 0
    seen, env = json.loads((run / "solve" / "seen.json").read_text())
    assert seen == [word.replace("@", str(run / "solve")) for word in words]
    assert (env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"]) == ("0", "1", "0")
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("node7", "10041")
    assert not stale.exists() and not list(tmp_path.rglob("pwned")) and not (ROOT / "pwned").exists()


def test_rank_env_refuses_outside_a_step() -> None:
    with pytest.raises(ValueError, match="SLURM_LOCALID not set"):
        rank_env.rank_env({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"})
    with pytest.raises(SystemExit, match="usage"):
        rank_env.main(["rank_env", "true"])
