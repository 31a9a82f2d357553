"""The batch script's bash, run for real: an srun that drops its options and runs the command here, and the rest of Slurm
as stand-ins. How a job ends, what it says of it, and whether it starts again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launchers.executors import slurm
from launchers.planning.plan import PlannedStage
from recipes import rank_env
from recipes.stage import Process, Resources
from tests.launchers.slurm_stand_ins import Cluster, stage

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


SRUN = """#!/bin/bash
log=/dev/null
while [[ $1 == -* ]]; do case $1 in --output=*) log=${1#*=} ;; esac; shift; done
exec env SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 "$@" >>"${log//%t/0}" 2>&1
"""


def run_script(
    cluster: Cluster, planned: PlannedStage, *args: str, config: slurm.Config | None = None, **env: str
) -> "subprocess.CompletedProcess[str]":
    cluster.script("srun", SRUN)
    cluster.script("scontrol.answer", '#!/bin/bash\n[ "$2" = hostnames ] && echo node7\nexit 0\n')
    text = slurm.script(config or slurm.Config(python=sys.executable), planned)
    environment = {**os.environ, "SLURM_JOB_ID": "20041", "SLURM_JOB_NODELIST": "node7", **env}
    return subprocess.run(
        ["bash", "-c", text, "submit.sh", *args],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
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


def error_of(folder: Path) -> dict[str, str]:
    return json.loads((folder / "error.json").read_text())


SAY = "import sys, os; os.write(2, sys.argv[1].encode()); os._exit(int(sys.argv[2]))"
RECORD = """import json, sys
json.dump({"error": 'CUDA out of memory. "x"', "type": "OutOfMemoryError"}, open(sys.argv[1], "w"), indent=2)
open(sys.argv[1], "a").write(chr(10))
raise SystemExit(1)"""


@pytest.mark.parametrize(
    ("main", "kind"),
    [
        (("import os; os.kill(os.getpid(), 9)",), "node"),
        ((SAY, "slurmstepd-node1: error: StepId=9.0 exceeded memory limit (601 > 209), being killed", "1"), "node"),
        ((SAY, "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "1"), "node"),
        ((SAY, "srun: error: node1: task 3: Out Of Memory", "1"), "node"),
        ((SAY, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "1"), "gpu"),
        ((RECORD, "@/error.json"), "gpu"),
    ],
)
def test_out_of_memory_ends_the_job_with_advice(
    cluster: Cluster, tmp_path: Path, main: tuple[str, ...], kind: str
) -> None:
    done = run_script(cluster, stage("train", python(*main), run=tmp_path))
    assert done.returncode == 1 and not any("requeue" in call for call in cluster.calls)
    error = error_of(tmp_path / "train")
    key = {"node": "cluster.mem", "gpu": "stages.train.pack_length"}[kind]
    assert error["type"].startswith("OutOfMemory") and key in error["advice"] and error["advice"] in done.stdout


def test_memory_that_ran_out_in_an_earlier_attempt_is_not_this_one_s(cluster: Cluster, tmp_path: Path) -> None:
    logs = tmp_path / "train" / "logs"
    logs.mkdir(parents=True)
    (logs / "main.log").write_text("CUDA out of memory\n")
    (tmp_path / "train" / "error.json").write_text('{"error": "CUDA out of memory"}')
    done = run_script(cluster, stage("train", python("raise SystemExit(3)"), run=tmp_path))
    assert done.returncode == 3 and "memory" not in done.stdout
    assert not (tmp_path / "train" / "error.json").exists()


def test_a_server_out_of_gpu_memory_gives_the_server_s_advice(cluster: Cluster, tmp_path: Path) -> None:
    server = python(SAY, "CUDA out of memory", "1", service=True)
    # a stage that saves when it is asked to stop ends with 85, and again would end the same way
    saves = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(85))\ntime.sleep(60)"
    planned = stage("solve", server, python(saves), run=tmp_path)
    planned.tasks[0].content["server"] = {"kind": "trtllm"}
    done = run_script(cluster, planned)
    assert done.returncode == 1 and not any("requeue" in call for call in cluster.calls)
    assert "server.max_batch_size" in error_of(tmp_path / "solve")["advice"]


def test_the_signal_before_the_limit_saves_and_requeues(cluster: Cluster, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    saves = (
        "import signal, sys, time\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(85))\n"
        "open(sys.argv[1], 'w').close()\ntime.sleep(60)"
    )
    signals = 'while [ ! -e "$READY" ]; do sleep 0.05; done; kill -USR1 "$PPID"; exec sleep 60'
    planned = stage(
        "train", Process("watch", ["bash", "-c", signals], service=True), python(saves, str(ready)), run=tmp_path
    )
    # the stand-in srun becomes the command, so the service's parent is the job's script
    done = run_script(cluster, planned, READY=str(ready))
    assert done.returncode == 85 and "scontrol requeue 20041" in cluster.calls


def test_a_job_that_started_too_often_stops(cluster: Cluster, tmp_path: Path) -> None:
    """Slurm's own requeues, after a failed node or preemption, count too."""
    ran = tmp_path / "ran"
    planned = stage("train", python("import sys; open(sys.argv[1], 'w')", str(ran)), run=tmp_path)
    done = run_script(cluster, planned, SLURM_RESTART_COUNT="21")
    assert done.returncode == 1 and not ran.exists()
    assert "max_requeues=20" in error_of(tmp_path / "train")["error"]
    assert run_script(cluster, planned, SLURM_RESTART_COUNT="20").returncode == 0


def test_a_later_array_works_in_later_folders(cluster: Cluster, tmp_path: Path) -> None:
    planned = stage("solve", python("import sys; open(sys.argv[1], 'w')", "@/ran"), run=tmp_path, tasks=6)
    assert run_script(cluster, planned, "4", SLURM_ARRAY_TASK_ID="1").returncode == 0
    assert [path.parent.name for path in tmp_path.rglob("ran")] == ["shard_5"]


ENROOT = """#!/bin/bash
# start --rw --rc <file> --conf <file> [--mount <fstab>] [--env <name>] image command ...: as enroot(1) does, without the container
set -e
shift
while [[ $1 == --* ]]; do
  case $1 in
    --conf) . "$2"; shift 2 ;;
    --rc) rc=$2; shift 2 ;;
    --env) named+=("$2"); shift 2 ;;
    --mount) shift 2 ;;
    *) shift ;;
  esac
done
image=$1
shift
environ >"$HOME/environ"
for name in "${named[@]}"; do echo "$name=${!name}"; done >>"$HOME/environ"
mapfile -t pairs <"$HOME/environ"
cd /
exec env -i PATH="$PATH" IMAGE="$image" "${pairs[@]}" sh "$rc" "$@"
"""


def test_enroot_hands_over_what_the_step_needs(cluster: Cluster, tmp_path: Path) -> None:
    cluster.script("enroot", ENROOT)
    show = "import json, os, sys; json.dump(dict(os.environ, cwd=os.getcwd()), open(sys.argv[1], 'w'))"
    config = slurm.Config(
        python=sys.executable,
        container="enroot",
        images={"base": "/images/base.sqsh"},
        env={"MODE": "a b"},
        env_from=["TOKEN"],
        local_scratch=str(tmp_path / "scratch"),
    )
    planned = stage("train", python(show, "@/seen.json"), run=tmp_path / "run", resources=Resources(gpus=2))
    done = run_script(
        cluster, planned, config=config, TOKEN="s3cret", HOME=str(tmp_path), UNLISTED="1", CUDA_VISIBLE_DEVICES="0,1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((tmp_path / "run" / "train" / "seen.json").read_text())
    assert (seen["IMAGE"], seen["MODE"], seen["TOKEN"], seen["cwd"]) == (
        "/images/base.sqsh",
        "a b",
        "s3cret",
        str(ROOT),
    )
    assert (seen["RANK"], seen["MASTER_PORT"], seen["CUDA_VISIBLE_DEVICES"]) == ("0", "10041", "0,1")
    assert (seen["RECIPE_IMAGE"], seen["HOME"]) == ("base", "/tmp")
    assert "UNLISTED" not in seen


def test_rank_env_refuses_outside_a_step() -> None:
    with pytest.raises(ValueError, match="SLURM_LOCALID not set"):
        rank_env.rank_env({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"})
    with pytest.raises(SystemExit, match="usage"):
        rank_env.main(["rank_env", "true"])
