"""Preflight: everything that would fail is said at once, a line each, with the key to change, before anything is
submitted."""

import re
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launchers.executors import slurm
from launchers.here.display import Display
from launchers.planning import preflight
from launchers.planning.mounts import Mount
from launchers.planning.plan import PlannedStage
from launchers.planning.preflight import Findings, Refused
from launchers.slurm import preflight as preflight_slurm
from nemo_ext.models.model import Model
from recipes.stage import Resources, Stage, main_process
from recipes.stages.problems.prepare_problems import Source
from tests.composing import resolve_recipe
from tests.launchers.slurm_stand_ins import Cluster, chain, stage

HERE = slurm.Config(check_paths=False)
PARTITIONS = (
    "PartitionName=gpu Default=YES MaxNodes=4 MaxTime=1-00:00:00 State=UP TotalNodes=16\n"
    "PartitionName=cpu Default=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED State=DOWN TotalNodes=1"
)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path, monkeypatch)
    made.scontrol(partition=PARTITIONS, config="MaxArraySize            = 1001")
    return made


def one(**needs: Any) -> PlannedStage:
    return stage("train", main_process("@/config.yaml"), resources=Resources(**needs))


@dataclass(kw_only=True)
class Reads(Stage):
    """What the made-up stages of this file read."""

    model: Model | None = None
    judge: Model | None = None
    inputs: list[str] = field(default_factory=list, metadata={"path": True})
    sources: dict[str, Source] = field(default_factory=dict)
    title: str = ""


def reading(**content: Any) -> PlannedStage:
    planned = one()
    task = planned.tasks[0]
    task.content.update(content)
    module: Any = SimpleNamespace(Config=Reads, processes=task.module.processes)
    return replace(planned, tasks=[replace(task, module=module)])


def failures(config: slurm.Config, *stages: PlannedStage) -> str:
    return "\n".join(preflight_slurm.look(config, list(stages)).failures)


def test_a_sound_run_passes_with_one_question_for_stages_that_are_alike(cluster: Cluster, tmp_path: Path) -> None:
    slurm.check(HERE, chain(tmp_path / "run", tasks=2000))
    asked = [call for call in cluster.calls if call.startswith("sbatch")]
    assert asked == ["sbatch --test-only --array=0-1000"]


def test_all_failures_are_said_at_once(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    config = slurm.Config(
        container="pyxis",
        env_from=["HF_TOKEN"],
        images={"base": f"{tmp_path}/base.sqsh"},
        mounts=[f"{tmp_path}/nothing:/data", "models:/models"],
        gpus_per_node=4,
    )
    with pytest.raises(Refused) as refused:
        slurm.check(config, [one(gpus=8), stage("solve", main_process("x"), resources=Resources(time="36000"))])
    heading, *lines = str(refused.value).splitlines()
    assert re.fullmatch(r"\d+ things to change, and nothing was submitted:", heading)
    assert int(heading.split()[0]) == len(lines) > 5
    for key in (
        "cluster.env_from", "resources.gpus=8", "cluster.gpus_per_node", "solve.resources.time='36000'",
        "cluster.images.base", f"{tmp_path}/nothing", "cluster.mounts has 'models:/models'",
    ):  # fmt: skip
        assert sum(key in line for line in lines) == 1, key
    assert not [call for call in cluster.calls if not call.startswith(("scontrol", "squeue", "sbatch --test-only"))]


@pytest.mark.parametrize(
    ("config", "planned", "message"),
    [
        (replace(HERE, container="docker"), one(), "cluster.container='docker'; it may be one of none, pyxis, enroot"),
        (replace(HERE, partition="gpus"), one(), "cluster.partition=gpus: unknown; there are: cpu, gpu"),
        (HERE, one(time="2-00:00:00"), r"partition gpu allows 1-00:00:00: set cluster\.max_time='1-00:00:00'"),
        (replace(HERE, extra_sbatch={"time": "2-00:00:00"}), one(), "partition gpu allows 1-00:00:00"),
        (HERE, one(nodes=8), r"train\.resources\.nodes=8, and a job in partition gpu gets 4 at most"),
        (replace(HERE, partition="cpu"), one(nodes=2), "a job in partition cpu gets 1 at most"),
        (replace(HERE, container="enroot"), one(), r"container=enroot starts \.sqsh files"),
    ],
)
def test_failure(cluster: Cluster, config: slurm.Config, planned: PlannedStage, message: str) -> None:
    assert re.search(message, failures(config, planned))


def test_max_time_makes_a_long_stage_acceptable(cluster: Cluster) -> None:
    assert not failures(replace(HERE, max_time="1-00:00:00"), one(time="72:00:00"))


def test_what_slurm_refuses_names_the_stages_and_the_key(cluster: Cluster, tmp_path: Path) -> None:
    cluster.script(
        "sbatch.answer", "#!/bin/bash\necho 'allocation failure: Invalid account or account/partition' >&2\nexit 1\n"
    )
    text = failures(HERE, *chain(tmp_path / "run"))
    assert "Invalid account" in text and "look at cluster.account" in text
    assert (
        "stages.prepare, stages.train: Slurm refuses" in text or "stages.prepare, stages.solve, stages.train" in text
    )


def test_no_slurm_here(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    text = failures(replace(HERE, env_from=["NOT_SET"]), one())
    assert "no sbatch on PATH" in text and "NOT_SET, not set here" in text and not cluster.calls


def test_a_controller_that_does_not_answer_is_one_failure(cluster: Cluster) -> None:
    cluster.script("scontrol.answer", "#!/bin/bash\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    found = preflight_slurm.look(HERE, [one()])
    assert len(found.failures) == 1 and "Unable to contact slurm controller" in found.failures[0]


def test_a_stage_that_is_queued_already(cluster: Cluster, tmp_path: Path) -> None:
    stages = chain(tmp_path / "run")
    cluster.scontrol(partition=PARTITIONS, config="MaxArraySize            = 2")
    slurm.submit(HERE, stages, Display())
    cluster.answer("squeue", f"55|/other/submit.sh\n102|{stages[1].folder}/submit.sh\n")
    with pytest.raises(ValueError, match="stage solve is job 102, which has not ended. Wait for it, or: scancel 102"):
        slurm.check(HERE, stages)
    cluster.answer("squeue", "55|/other/submit.sh\n")
    slurm.check(HERE, stages)
    cluster.answer("squeue", f"55|/other/submit.sh\n60|{stages[2].folder}/submit.sh 2\n")
    with pytest.raises(ValueError, match="stage train is job 60, which has not ended"):
        slurm.check(HERE, stages)


def test_warnings_are_shown_and_the_run_goes_on(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    slurm.check(replace(HERE, container="pyxis", partition="cpu", python="no-such-python"), [one()])
    said = capfd.readouterr().err
    assert "warning: image base is nvcr.io" in said and "++cluster.images.base=<a .sqsh file>" in said
    assert "warning: partition cpu is DOWN" in said and "no-such-python" not in said


def test_a_long_stage_will_be_requeued(cluster: Cluster) -> None:
    train = resolve_recipe("sft_full", run_dir=Path("/lustre/runs/sft_full"))["train"]
    short = replace(train, resources=replace(train.resources, time="01:00:00"))
    text = "\n".join(preflight_slurm.look(replace(HERE, max_requeues=2), [short]).warnings)
    assert "stages.train: about" in text and "the time limit is 01:00:00: it will be requeued about" in text
    assert "cluster.max_requeues=2 is less" in text


def test_models_and_data_that_are_not_here(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "rows-1.jsonl").touch()
    planned = reading(
        model={"hf_path": f"{tmp_path}/model"},
        judge={"hf_path": f"{tmp_path}/judge"},
        inputs=[f"{tmp_path}/rows-*.jsonl", f"{tmp_path}/more-*.jsonl", "/runs/sft/prepare", "toy://solved"],
        sources={"math": {"path": f"{tmp_path}/math.jsonl"}, "hub": {"path": "org/name"}},
        title="/not/a/path",
    )
    found = Findings()
    preflight.look_at_paths(found, [planned, planned], None)
    assert [line.split(":")[0] for line in found.failures] == [
        "stages.train.judge.hf_path and 1 more", "stages.train.inputs and 1 more", "stages.train.sources.math.path and 1 more",
    ]  # fmt: skip
    assert "set HF_MODELS or that key" in found.failures[0] and "set DATA_DIR or that key" in found.failures[2]


def test_paths_are_looked_up_through_the_container_s_mounts(tmp_path: Path) -> None:
    (tmp_path / "here" / "8b").mkdir(parents=True)
    mounts = [Mount("/nowhere", "/models"), Mount(f"{tmp_path}/here", "/models/llama")]
    found = Findings()
    planned = [
        reading(model={"hf_path": path}) for path in ("/models/llama/8b", "/models/other", str(tmp_path), "/in/image")
    ]
    preflight.look_at_paths(found, planned, mounts)
    missing, unmounted = found.failures
    assert "there is no /models/other (mounted from /nowhere/other)" in missing
    assert f"{tmp_path} is in no mount" in unmounted and "cluster.mounts" in unmounted
    assert len(found.warnings) == 1 and "/in/image" in found.warnings[0]


def test_a_run_folder_that_others_do_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(kind: str, folder: Path) -> Findings:
        found = Findings()
        monkeypatch.setattr(preflight, "file_system", lambda place: kind)
        preflight.look_at_folder(found, folder, "set RUNS_DIR")
        return found

    assert "is on tmpfs" in said("tmpfs", Path("/var/lib/run")).failures[0]
    assert "cluster.check_paths=false" in said("ext4", Path("/tmp/run")).failures[0]
    assert "is on ext4, most often a disk of one machine" in said("ext4", Path("/var/lib/run")).warnings[0]
    for kind in ("nfs4", "lustre", "fuse.sshfs"):
        assert said(kind, Path("/tmp/run")) == Findings()


def test_a_run_folder_that_cannot_be_written() -> None:
    found = Findings()
    preflight.look_at_folder(found, Path("/proc/runs/sft"), "set RUNS_DIR")
    assert "/proc/runs/sft cannot be written" in found.failures[0] and "set RUNS_DIR" in found.failures[0]


def test_a_secret_among_the_values_is_refused_without_saying_it(cluster: Cluster) -> None:
    plain = {"HF_HOME": "/cache/huggingface", "HF_TOKEN": "/run/token", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "db_password"):
        said = failures(replace(HERE, env={**plain, name: "hf_s3cret"}), one())
        assert f"cluster.env.{name} looks like a secret" in said and f"cluster.env_from instead: [{name}]" in said
        assert "s3cret" not in said
    assert "secret" not in failures(replace(HERE, env=plain), one())
    found = Findings()
    preflight.look_at_secrets(found, [], {"HF_TOKEN": "hf_s3cret"}, "cluster.ssh.env")
    assert found.failures[0].startswith("cluster.ssh.env.HF_TOKEN looks")


def test_the_file_system_of_a_folder() -> None:
    assert preflight.file_system(Path("/proc/self")) == "proc"
    assert preflight.file_system(Path("/")) != "unknown"


def test_checkpoints_that_do_not_fit_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    train = resolve_recipe("sft_full", run_dir=Path("/lustre/runs/sft_full"))["train"]
    found = Findings()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=10**11))
    preflight.look_at_disk(found, [train])
    assert "100 GB free, and the checkpoints take 899 GB" in found.warnings[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=10**13))
    found = Findings()
    preflight.look_at_disk(found, [train])
    assert found == Findings()


def test_clocks_that_differ_are_told(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, now = time.time, int(time.time())

    def at(ahead_s: float) -> str:
        told = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now + ahead_s))
        shown = f"Configuration data as of {told}\nMaxArraySize            = 1001"
        cluster.scontrol(partition=PARTITIONS, config=shown)
        return "\n".join(preflight_slurm.look(HERE, [one()]).warnings)

    monkeypatch.setattr(time, "time", lambda: now)
    assert "clock" not in at(0)
    assert "this machine's clock and the Slurm controller's differ: that is 91 s ahead of this" in at(91)
    assert "behind this" in at(-90)
    answers = iter([now, now + 60])
    monkeypatch.setattr(time, "time", lambda: next(answers, now + 60))
    assert preflight.clock_ahead(now + 30, time.time()) == 0, "the answer took a minute"
    monkeypatch.setattr(time, "time", real)
    found = Findings()
    preflight.look_at_folder(found, tmp_path, "set RUNS_DIR")
    assert not any("clock" in line for line in found.warnings)
    monkeypatch.setattr(time, "time", lambda: real() + 100)
    preflight.look_at_folder(found, tmp_path, "set RUNS_DIR")
    assert re.search(r"'s file server differ: that is (99|1\d\d) s behind this", "\n".join(found.warnings))
