"""The Slurm executor without Slurm: what scripts it makes and refuses, and submission against stand-in clients."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from launchers import run
from launchers.executors import slurm
from launchers.here.display import Display
from launchers.planning.plan import PlannedStage, Task
from launchers.slurm import client as slurm_client
from launchers.slurm import job_arrays, sbatch
from launchers.slurm import preflight as preflight_slurm
from nemo_ext.models.model import Model
from nemo_ext.records import manifest
from recipes.asking.served import ServedStage, server_processes
from recipes.stage import Process, Resources, main_process
from recipes.stages.training import train_sft
from tests.launchers.slurm_stand_ins import Cluster, chain, stage

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = slurm.Config(check_paths=False)
"""A cluster whose run folders may be in /tmp."""


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


def timed(limit: str) -> PlannedStage:
    return stage("a", main_process("x"), resources=Resources(time=limit))


def other_image(kind: str) -> PlannedStage:
    planned = solve(1)
    planned.tasks[0].content["server"] = {"kind": kind}
    return planned


PYXIS = slurm.Config(
    container="pyxis",
    images={"trtllm": "registry.example.org/trtllm:1"},
    mounts=["/data:/data:ro"],
    max_parallel_tasks=2,
)


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
        (slurm.Config(env={"A;B": "1"}), train(), "not the name of an environment variable"),
        (slurm.Config(env_from=["A=secret"]), train(), "not the name of an environment variable"),
        (slurm.Config(), stage("a", main_process("x"), run=Path("/runs/50%")), "use another run_dir="),
        (slurm.Config(), stage("a", main_process("x", 3), resources=Resources(nodes=2)), "3 ranks"),
        (
            slurm.Config(container="pyxis"),
            stage("a", main_process("x"), resources=Resources(image="nope")),
            "no such image; there are: base",
        ),
        (slurm.Config(), timed("36000"), r"a\.resources\.time='36000'.* write '10:00:00' in quotes"),
        (slurm.Config(), timed("10:00"), "must be HH:MM:SS or D-HH:MM:SS"),
        (slurm.Config(), timed("00:00:00"), "must be HH:MM:SS"),
        (
            slurm.Config(max_time="86400"),
            timed("10:00:00"),
            r"cluster\.max_time='86400'.* write '1-00:00:00' in quotes",
        ),
        (slurm.Config(extra_sbatch={"time": "36000"}), train(), r"extra_sbatch\.time='36000'.* write '10:00:00' in"),
        (slurm.Config(extra_sbatch={"time-min": "3600"}), train(), r"extra_sbatch\.time-min='3600'.* '01:00:00' in"),
        (slurm.Config(gpu_option="gpus"), train(), "gpu_option='gpus'; it may be one of gpus-per-node, gres, none"),
        (slurm.Config(extra_srun={"x y": ""}), train(), "long name"),
        (
            slurm.Config(container="enroot", images={"nemo": "nvcr.io/nvidia/nemo:1"}),
            train(),
            r"set \+\+cluster\.images\.nemo=<that file>",
        ),
        (slurm.Config(container="pyxis", mounts=["data:/data"]), train(), "cluster.mounts has 'data:/data'"),
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


def test_shards_are_not_typed_one_by_one() -> None:
    planned = solve(tasks=500)
    made, calls = planned.tasks[0].module.processes, []
    planned.tasks[0].module.processes = lambda cfg, path: calls.append(path) or made(cfg, path)
    slurm.script(PYXIS, planned)
    assert len(calls) < 10, "and not once per shard"


def test_a_stage_with_more_tasks_than_an_array_may_have_is_several() -> None:
    assert job_arrays.ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert job_arrays.split([0, 1, 2], None) == [job_arrays.JobArray(0, "0-2")]
    assert job_arrays.split([1, 999, 1000, 2879], 1000) == [
        job_arrays.JobArray(0, "1,999"),
        job_arrays.JobArray(1000, "0"),
        job_arrays.JobArray(2000, "879"),
    ]


def test_the_servers_of_a_stage_are_steps_on_nodes_of_their_own() -> None:
    text = slurm.script(PYXIS, teacher())
    assert "service server-0 0 2 --nodes=2 --ntasks=16" in text and "service server-1 2 2 --nodes=2" in text


def test_a_site_caps_the_time_of_its_jobs() -> None:
    assert "#SBATCH --time=04:00:00" in slurm.script(slurm.Config(max_time="04:00:00"), train())
    assert "#SBATCH --time=12:00:00" in slurm.script(slurm.Config(max_time="2-00:00:00"), train())
    for_all = slurm.script(slurm.Config(max_time="04:00:00", extra_sbatch={"time": "08:00:00"}), train())
    assert "#SBATCH --time=08:00:00" in for_all and for_all.count("--time=") == 1


def test_gpus_are_asked_for_as_the_site_wants() -> None:
    def lines(**keys: str) -> str:
        return "\n".join(line for line in slurm.script(slurm.Config(**keys), train()).splitlines() if "gpu" in line)  # type: ignore[arg-type]

    assert "#SBATCH --gpus-per-node=8" in lines()
    assert "#SBATCH --gpus-per-node=a100:8" in lines(gpu_type="a100")
    assert "#SBATCH --gres=gpu:8" in lines(gpu_option="gres") and "per-node" not in lines(gpu_option="gres")
    assert "#SBATCH" not in lines(gpu_option="none")


def test_the_example_cluster_is_typed_and_names_no_unknown_key() -> None:
    example = OmegaConf.load(ROOT / "conf" / "cluster" / "slurm.yaml")
    typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(slurm.Config), example))
    assert typed == slurm.Config()
    with pytest.raises(ValidationError):
        OmegaConf.merge(OmegaConf.structured(slurm.Config), {"gpus_per_node": "many"})


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def finish(task: Task) -> None:
    task.folder.mkdir(parents=True, exist_ok=True)
    manifest.write(task.folder, task.stage, "x", task.config_hash, manifest.Facts(rows_out=1), 1.0)


def test_submit_chains_jobs_and_records_them(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    slurm.submit(HERE, chain(run), Display())
    prepare, solve_call, train_call = cluster.calls[1:]
    assert prepare == f"sbatch --parsable {run}/prepare/submit.sh"
    assert solve_call.startswith("sbatch --parsable --dependency=afterok:100 --kill-on-invalid-dep=yes --array=0-2%8 ")
    assert "--dependency=afterok:100:101 " in train_call
    jobs = json.loads((run / "jobs.json").read_text())
    assert [(name, jobs[name]["job"]) for name in jobs] == [("prepare", "100"), ("solve", "101"), ("train", "102")]
    assert (run / "train" / "submit.sh").read_text() == slurm.script(HERE, chain(run)[2])
    assert (run / "train" / "logs").is_dir()


def test_arrays_of_one_stage_run_one_after_another_and_all_are_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cluster.scontrol(config="MaxArraySize            = 2")
    stages = chain(run, tasks=5)
    finish(stages[1].tasks[1])
    slurm.submit(slurm.Config(max_parallel_tasks=4), stages[1:], Display())
    first, second, third, train_call = cluster.calls[1:]
    script = f"{run}/solve/submit.sh"
    assert first == f"sbatch --parsable --array=0%4 {script}"
    after = "--kill-on-invalid-dep=yes --array="
    assert second == f"sbatch --parsable --dependency=afterany:100 {after}0-1%4 {script} 2"
    assert third == f"sbatch --parsable --dependency=afterany:101 {after}0%4 {script} 4"
    assert "--dependency=afterok:100:101:102 " in train_call
    record = json.loads((run / "jobs.json").read_text())["solve"]
    assert (record["job"], record["jobs"], record["offsets"]) == ("100", ["100", "101", "102"], [0, 2, 4])
    assert record["array"] == "0,2-4"
    text = Path(script).read_text()
    assert "#SBATCH --array=0-1%4" in text and f"#   sbatch --array=0-1 {script} 2\n" in text


def test_secrets_are_written_nowhere(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    config = slurm.Config(
        env_from=["HF_TOKEN"], check_paths=False, container="enroot", images={"base": "/images/base.sqsh"}
    )
    slurm.check(config, chain(tmp_path / "run"))
    slurm.submit(config, chain(tmp_path / "run"), Display())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("HF_TOKEN" in path.read_text() for path in files), "its name is in the scripts"
    assert not [path for path in files if "s3cret" in path.read_text()]
    said = capfd.readouterr()
    assert "s3cret" not in said.out + said.err


def test_finished_stages_and_tasks_are_not_submitted(cluster: Cluster, tmp_path: Path) -> None:
    stages = chain(tmp_path / "run")
    for task in [*stages[0].tasks, stages[1].tasks[1]]:
        finish(task)
    slurm.submit(HERE, stages, Display())
    solve_call, train_call = cluster.calls[1:]
    assert "--dependency" not in solve_call and "--array=0,2%8" in solve_call
    assert "--dependency=afterok:100 " in train_call


def test_a_refused_stage_cancels_those_before_it(cluster: Cluster, tmp_path: Path) -> None:
    refuse = '#!/bin/bash\ncase "$*" in *train*) echo "sbatch: error: invalid account" >&2; exit 1;; esac; echo 7\n'
    cluster.script("sbatch.answer", refuse)
    with pytest.raises(ValueError, match="invalid account"):
        slurm.submit(HERE, chain(tmp_path / "run"), Display())
    assert cluster.calls[-1] == "scancel 7 7"
    cluster.script("scancel.answer", "#!/bin/bash\necho down >&2\nexit 1\n")
    with pytest.raises(ValueError, match="invalid account; and scancel 7: down: when it answers again, scancel 7 7"):
        slurm.submit(HERE, chain(tmp_path / "other"), Display())


def test_ctrl_c_twice_leaves_no_job_behind(cluster: Cluster, tmp_path: Path) -> None:
    """Once while sbatch is taking the job, whose number nobody knows yet, and again while what is known is cancelled."""
    idle = threading.Event()
    threading.Thread(
        target=idle.wait, daemon=True
    ).start()  # one that signals reach while the main one has them blocked
    interrupt = "#!/bin/bash\nkill -INT $PPID; sleep 0.2; echo 700; echo $* >{}\n"
    for name in ("sbatch", "scancel"):
        cluster.script(name, interrupt.format(tmp_path / name))
    with pytest.raises(KeyboardInterrupt):
        slurm.submit(HERE, chain(tmp_path), Display())
    idle.set()
    assert (tmp_path / "sbatch").exists() and (tmp_path / "scancel").read_text() == "700\n"


def test_jobs_that_cannot_be_recorded_are_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "jobs.json").mkdir()
    with pytest.raises(OSError, match="jobs.json"):
        slurm.submit(HERE, chain(tmp_path), Display())
    assert cluster.calls[-1] == "scancel 100"


def test_a_machine_that_is_no_login_node_is_told_so(cluster: Cluster, tmp_path: Path) -> None:
    said = (
        "sbatch: error: fetch_config: DNS SRV lookup failed\nsbatch: fatal: Could not establish a configuration source"
    )
    cluster.script("sbatch.answer", f"#!/bin/bash\necho '{said}' >&2\nexit 1\n")
    with pytest.raises(ValueError, match=r"^sbatch finds no slurm\.conf\. Is this the cluster's login node\?"):
        slurm.submit(HERE, chain(tmp_path), Display())


def test_the_shells_own_slurm_settings_do_not_reach_the_clients(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They win over the script's #SBATCH lines: submit.sh would say one thing and the job be another."""
    for name in ("SBATCH_TIMELIMIT", "SBATCH_PARTITION", "SBATCH_ARRAY_INX", "SQUEUE_FORMAT", "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "high")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    cluster.script("squeue", "#!/bin/bash\nenv")
    seen = {line.partition("=")[0] for line in slurm_client.client(["squeue"]).splitlines()}
    assert not [name for name in seen if name.startswith(("SBATCH_", "SQUEUE_", "SLURM_TIME"))]
    assert {"SLURM_CONF", "PATH"} <= seen


def test_a_client_that_hangs_is_reported(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.script("sbatch.answer", "#!/bin/bash\nexec sleep 30\n")
    monkeypatch.setattr(slurm_client, "CLIENT_TIMEOUT_S", 0.3)
    with pytest.raises(ValueError, match="sbatch did not answer"):
        slurm.submit(HERE, chain(tmp_path / "run")[:1], Display())


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"partitoin": "x"}, "unknown key cluster.partitoin of cluster.executor=slurm; did you mean partition"),
        ({"qwertz": 1}, "unknown key cluster.qwertz of cluster.executor=slurm; it has: account, "),
        ({"ssh": {"user": "me"}}, "SshHost.*host"),
        ({"ssh": {"host": "login1", "pth": "x"}}, "Key 'pth' not in 'SshHost'"),
        ({"max_requeues": "many"}, r"cluster \(launchers/executors/slurm.py\): Value 'many'"),
    ],
)
def test_a_cluster_file_with_a_mistake(cluster: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run.executor_of(OmegaConf.create({"cluster": {"executor": "slurm", **cluster}}))


def training(tmp_path: Path) -> PlannedStage:
    """Llama-3.1-8B at TP4 x DP2 on one node: 330 GiB of host memory at a checkpoint."""
    model = Model(name="llama31_8b", hf_path="/models/Llama-3.1-8B", context_length=8192)
    resources = Resources(nodes=1, gpus=8, image="nemo")
    sizes = {"tensor_model_parallel_size": 4, "data_parallel_size": 2}
    config = train_sft.Config(
        uses="train_sft",
        name="train",
        output_dir=str(tmp_path / "train"),
        data="d",
        model=model,
        resources=resources,
        **sizes,
    )
    content = OmegaConf.to_container(OmegaConf.structured(config))
    return PlannedStage("train", "train_sft", [], resources, [Task("train", "", content, train_sft)])  # type: ignore[arg-type]


def test_a_checkpoints_host_memory_is_asked_for(tmp_path: Path) -> None:
    planned = training(tmp_path)
    assert planned.host_gib is not None and 280 < planned.host_gib < 400
    assert f"#SBATCH --mem={math.ceil(planned.host_gib)}G\n" in sbatch.script(HERE, planned)
    assert "#SBATCH --mem=0\n" in sbatch.script(replace(HERE, mem="0"), planned)
    assert "--mem" not in sbatch.script(HERE, train()), "nothing is known of its model"


@pytest.mark.parametrize(
    ("mem", "refused"), [("100G", True), ("102400", True), ("1T", False), ("0", False), (None, False)]
)
def test_too_little_host_memory_is_refused_before_it_is_submitted(
    tmp_path: Path, cluster: Cluster, mem: str | None, refused: bool
) -> None:
    found = preflight_slurm.look(replace(HERE, mem=mem), [training(tmp_path)])
    said = [
        failure for failure in found.failures if failure.startswith(f"cluster.mem={mem}: stages.train needs about")
    ]
    assert bool(said) == refused
    regardless = preflight_slurm.look(replace(HERE, mem=mem, check_memory=False), [training(tmp_path)])
    assert not [failure for failure in regardless.failures if "cluster.mem=" in failure]
