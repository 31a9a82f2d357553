"""Which log is shown, and that its lines are the file's, however it grows."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from launchers import logs
from launchers.following import log_files
from launchers.following.log_files import Follower
from launchers.slurm.tasks import Queue
from tests.conftest import ROOT
from tests.launchers.followed_run import Clients, Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    clients = Clients.on_path(tmp_path, monkeypatch)
    made = Run(tmp_path / "sft")
    made.stage("solve", "7", shards=4)
    made.stage("train", "8", ("solve",))
    clients.add("7_0", "RUNNING", made.folder, "solve")
    clients.add("7_1", "RUNNING", made.folder, "solve")
    clients.add("7_2", "FAILED", made.folder, "solve", status="256")
    clients.add("7_3", "PENDING", made.folder, "solve", reason="Priority")
    clients.add("8", "PENDING", made.folder, "train", reason="Dependency")
    return made


def chosen(run: Run, stage: str, **words: str | None) -> str:
    """The log chosen, from its task's folder on."""
    args = Namespace(stage=stage, follow=False, **{"task": None, "process": None, **words})
    _, found = logs.wait_for_logs(run.folder, args, Queue())
    return str(found[0].path.relative_to(run.folder))


def test_the_failed_task_comes_first_and_of_it_the_log_that_failed_first(run: Run) -> None:
    run.write("solve/shard_0/logs/main.log", "newer\n", age_s=1)
    run.write("solve/shard_2/logs/main-0.log", "step 3\nRuntimeError: NCCL timed out, rank 1 is gone\n", age_s=5)
    run.write("solve/shard_2/logs/main-1.log", "step 3\nValueError: row 7 has no problem\n", age_s=9)
    run.write("solve/shard_2/logs/main-2.log", "step 3\n", age_s=30)
    run.write("solve/logs/slurm-7_2.log", "slurmstepd: error: *** STEP 7.0 CANCELLED AT\n", age_s=4)
    assert chosen(run, "solve") == "solve/shard_2/logs/main-1.log"
    assert chosen(run, "solve", process="slurm") == "solve/logs/slurm-7_2.log"
    assert chosen(run, "solve", process="main-2") == "solve/shard_2/logs/main-2.log"


def test_of_running_tasks_the_newest_that_says_something(run: Run) -> None:
    (run.folder / "jobs.json").write_text((run.folder / "jobs.json").read_text())
    run.done("solve/shard_2", age_s=0)
    run.write("solve/shard_0/logs/main.log", "a\n", age_s=5)
    run.write("solve/shard_1/logs/main.log", "b\n", age_s=2)
    run.write("solve/shard_1/logs/server-0.log", "", age_s=1)
    run.write("solve/logs/slurm-7_1.log", "srun: ok\n", age_s=1)
    assert chosen(run, "solve", task="shard_1") == "solve/shard_1/logs/main.log"
    assert chosen(run, "solve", task="shard_1", process="server") == "solve/shard_1/logs/server-0.log"
    assert chosen(run, "solve", task="shard_0") == "solve/shard_0/logs/main.log"


@pytest.mark.parametrize(
    ("stage", "words", "said"),
    [
        ("slove", {}, "no stage 'slove' in .* it has: solve, train"),
        ("solve", {"task": "shard_9"}, "it has shard_0 to shard_3"),
        ("train", {"task": "shard_9"}, "leave --task out"),
        ("solve", {"process": "server-3"}, "there are: main$"),
        ("train", {}, "stage train .waiting. has no logs yet; --follow waits"),
    ],
)
def test_asked_for_what_there_is_not_it_lists_what_there_is(
    run: Run, stage: str, words: dict[str, str], said: str
) -> None:
    run.write("solve/shard_2/logs/main.log", "x\n")
    with pytest.raises(ValueError, match=said):
        chosen(run, stage, **words)


def test_the_last_lines_are_read_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "main.log"
    path.write_text("".join(f"line {number} {'x' * 90}\n" for number in range(5000)))
    assert [line.split()[1] for line in log_files.tail(path, 3)] == ["4997", "4998", "4999"]
    assert len(log_files.tail(path, 9999)) == 5000 and log_files.tail(path, 0) == []
    path.write_bytes(b"one\n\ntwo\r\nthree\xff half")
    assert log_files.tail(path, 3) == ["", "two", "three\ufffd half"]
    assert log_files.tail(path, 3, log_files.end_of_lines(path)) == ["one", "", "two"], (
        "without the line being written"
    )
    path.write_bytes(b"whole\n" + b"x" * 200_000)
    assert log_files.end_of_lines(path) == len("whole\n")
    path.write_text("")
    assert log_files.tail(path, 3) == [] and log_files.end_of_lines(path) == 0


def test_progress_bars_colours_and_control_codes_are_gone() -> None:
    bar = "  0%|  |\r 50%|= |\r\x1b[32m100%|==|\x1b[0m 4/4"
    assert log_files.clean(bar) == "100%|==| 4/4"
    assert log_files.clean("a\tb\x1b]0;title\x07\x07\r") == "a\tb"


def test_errors_come_with_their_traceback(tmp_path: Path) -> None:
    path = tmp_path / "main.log"
    path.write_text(
        "step 1 loss=0.4\nTraceback (most recent call last):\n  File 'x', line 3\n    raise\nValueError: no\nerrors=0\n"
        "step 2\nslurmstepd: error: Detected 1 oom_kill event\nstep 3\ntorch.OutOfMemoryError: CUDA out of memory\n"
    )
    found = log_files.errors(path, 50)
    assert found[0].startswith("Traceback") and found[3] == "ValueError: no"
    assert found[4:] == ["slurmstepd: error: Detected 1 oom_kill event", "torch.OutOfMemoryError: CUDA out of memory"]
    assert log_files.errors(path, 1) == found[-1:]


def test_a_log_is_followed_through_growth_truncation_and_requeue(tmp_path: Path) -> None:
    path = tmp_path / "main.log"
    follower = Follower(path, 0)
    assert follower.new_lines() == []
    path.write_text("one\ntw")
    assert follower.new_lines() == ["one"]
    with path.open("a") as handle:
        handle.write("o\nthree\n")
    assert follower.new_lines() == ["two", "three"] and follower.new_lines() == []
    path.write_text("new\n")
    assert follower.new_lines() == ["new"], "truncated"
    other = tmp_path / "other"
    other.write_text("another attempt, in a file that is longer\n")
    other.rename(path)
    assert follower.new_lines() == ["another attempt, in a file that is longer"]
    path.unlink()
    assert follower.new_lines() == []
    path.write_text("back\n")
    assert follower.new_lines() == ["back"]


def test_the_command(run: Run) -> None:
    run.write("solve/shard_2/logs/main.log", "".join(f"line {number}\n" for number in range(100)))
    argv = [sys.executable, str(ROOT / "launchers" / "logs.py"), str(run.folder)]
    done = subprocess.run([*argv, "solve", "--lines", "2"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "line 98\nline 99\n")
    assert "shard_2: " in done.stderr and str(run.folder / "solve/shard_2/logs/main.log") in done.stderr
    follow = subprocess.Popen(
        [*argv, "solve", "--follow"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert follow.stdout is not None
        assert [follow.stdout.readline() for _ in range(50)][-1] == "line 99\n"
        with (run.folder / "solve/shard_2/logs/main.log").open("a") as handle:
            handle.write("and on\n")
        assert follow.stdout.readline() == "and on\n"
        follow.send_signal(2)
        assert follow.wait(60) == 0
    finally:
        follow.kill()
        follow.wait()
