"""Real processes: what they are told, how their ends are told apart, and that none outlives the launcher."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launchers.executors import local
from launchers.here import processes
from launchers.here.display import Display
from launchers.planning.plan import PlannedStage
from recipes.stage import Process
from tests.conftest import ROOT
from tests.launchers.process_stages import Left, gone, process_stage, python, wait_until


def submit(planned: PlannedStage, **config: object) -> None:
    local.submit(local.Config(**config), [planned], Display())  # type: ignore[arg-type]


def failure(planned: PlannedStage) -> str:
    with pytest.raises(processes.TaskFailed) as caught:
        submit(planned)
    return str(caught.value)


def test_ranks_form_one_group(tmp_path: Path) -> None:
    folder = tmp_path / "part0"
    code = f"""
import json, os, pathlib
keys = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "MINE", "OMP_NUM_THREADS"]
pathlib.Path({str(folder)!r}, os.environ["RANK"]).write_text(json.dumps([os.environ[key] for key in keys]))
"""
    submit(process_stage(tmp_path, python("main", code, ranks=3)), env={"MINE": "yes", "OMP_NUM_THREADS": "2"})
    told = [json.loads((folder / str(rank)).read_text()) for rank in range(3)]
    assert [each[:3] for each in told] == [[str(rank), str(rank), "3"] for rank in range(3)]
    assert len({tuple(each[3:]) for each in told}) == 1
    assert told[0][3] == "127.0.0.1" and int(told[0][4]) > 1023 and told[0][5:] == ["yes", "2"]
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["main-0.log", "main-1.log", "main-2.log"]
    assert json.loads((folder / "usage.json").read_text())["seconds"] > 0


def test_one_failed_rank_ends_the_others(tmp_path: Path, left_behind: Left) -> None:
    code = "import os, sys, time\nif os.environ['RANK'] == '1': sys.exit('rank one says no')\ntime.sleep(600)"
    message = failure(process_stage(tmp_path, python("main", code, ranks=2)))
    assert "fake/part0: exit code 1." in message and "rank one says no" in message
    assert not left_behind()


def test_a_failed_main_shows_its_error_file(tmp_path: Path) -> None:
    code = f"""
import pathlib, sys
pathlib.Path({str(tmp_path / "part0" / "error.json")!r}).write_text('{{"error": "row 7 has no problem"}}')
sys.exit("a long traceback")
"""
    message = failure(process_stage(tmp_path, python("main", code)))
    assert "fake/part0: row 7 has no problem" in message and "traceback" not in message
    assert str(tmp_path / "part0" / "logs") in message


def test_a_main_killed_from_outside_is_a_failure(tmp_path: Path) -> None:
    message = failure(process_stage(tmp_path, python("main", "import os; os.kill(os.getpid(), 9)")))
    assert "exit code -9" in message


def test_a_dead_service_fails_its_task_with_its_last_lines(tmp_path: Path, left_behind: Left) -> None:
    dying = "import sys\nprint('loading')\nsys.exit('out of memory')"
    planned = process_stage(
        tmp_path, python("server-0", dying, service=True), python("main", "import time; time.sleep(600)")
    )
    message = failure(planned)
    assert "service server-0 ended with code 1" in message and "loading" in message and "out of memory" in message
    assert not left_behind()


def test_a_finished_main_stops_its_services_and_old_addresses_are_gone(tmp_path: Path, left_behind: Left) -> None:
    ready = tmp_path / "part0" / "server-0.json"
    serve = f"import pathlib, time\ntime.sleep(0.5)\npathlib.Path({str(ready)!r}).write_text('new')\ntime.sleep(600)"
    main = f"""
import pathlib, time
path = pathlib.Path({str(ready)!r})
while not path.exists(): time.sleep(0.01)
assert path.read_text() in ("", "new"), path.read_text()
"""
    planned = process_stage(
        tmp_path, python("server-0", serve, service=True, ready_file=str(ready)), python("main", main)
    )
    ready.write_text("an address of yesterday")
    submit(planned)
    assert not left_behind()


def test_a_process_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_behind: Left
) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.5)
    ready = tmp_path / "ready"
    stubborn = f"""
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({str(ready)!r}).touch()
time.sleep(600)
"""
    main = f"import pathlib, time\nwhile not pathlib.Path({str(ready)!r}).exists(): time.sleep(0.01)"
    submit(process_stage(tmp_path, python("server-0", stubborn, service=True), python("main", main)))
    assert not left_behind()


def test_no_more_tasks_at_once_than_asked(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, time
marks = pathlib.Path({str(tmp_path)!r})
mine = marks / f"running-{{os.getpid()}}"
mine.touch()
time.sleep(0.3)
print("at once:", len(list(marks.glob("running-*"))))
mine.unlink()
"""
    submit(process_stage(tmp_path, python("main", code), parts=4), parallel_tasks=2)
    counts = [int((tmp_path / f"part{i}" / "logs" / "main.log").read_text().split()[-1]) for i in range(4)]
    assert max(counts) <= 2


def test_a_missing_program_fails_and_stops_what_was_started(tmp_path: Path, left_behind: Left) -> None:
    planned = process_stage(
        tmp_path,
        python("server-0", "import time; time.sleep(600)", service=True),
        Process("main", ["no-such-program"]),
    )
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        submit(planned)
    assert not left_behind()


def test_gpus_are_checked(tmp_path: Path) -> None:
    few = local.Config(gpus=2)
    local.check(few, [process_stage(tmp_path, gpus=2), process_stage(tmp_path)])
    for needy in (process_stage(tmp_path, gpus=4), process_stage(tmp_path, gpus=1, nodes=2)):
        with pytest.raises(ValueError, match=r"stage fake needs .* with 2\. .*cluster=.*\+scale=tiny"):
            local.check(few, [needy])


def test_several_nodes_are_refused_without_gpus_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs 2 node\(s\) x 0 GPUs.*cluster=.*\+scale=tiny"):
        local.check(local.Config(), [process_stage(tmp_path, nodes=2)])


def test_tasks_at_once_share_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    code = f"""
import os, pathlib, time
folder = pathlib.Path({str(tmp_path)!r})
for device in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
    (folder / f"gpu-{{device}}").touch(exist_ok=False)
time.sleep(0.2)
print("had", os.environ["CUDA_VISIBLE_DEVICES"])
for device in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
    (folder / f"gpu-{{device}}").unlink()
"""
    submit(process_stage(tmp_path, python("main", code), parts=4, gpus=1), parallel_tasks=4, gpus=3)
    had = {(tmp_path / f"part{i}" / "logs" / "main.log").read_text().split()[-1] for i in range(4)}
    assert had <= {"2", "5", "7"} and len(had) > 1


def test_a_stage_without_gpus_sees_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with one GPU, two CPU ranks of the tiny training would each take it, or fail to."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    code = "import os; print('had', repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    submit(process_stage(tmp_path, python("main", code)), gpus=1)
    assert "had ''" in next(tmp_path.rglob("main.log")).read_text()


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    display = Display()
    display.console.file = output = io.StringIO()
    display.begin("train", resumed=True)
    display.last_plain += 3600  # however long the next lines take
    folder = tmp_path
    (folder / "heartbeat.json").write_text(
        '{"done": 1500, "total": 3000, "unit": "steps", "rate": 2.5, "eta_s": 600.0, "time": 1, "loss": 0.123456}'
    )
    display.beat([folder], 0)
    assert output.getvalue() == "train: resumes\n", "not more than one line in ten seconds"
    display.last_plain -= 7200
    display.beat([folder], 1)
    assert "1,500/3,000 steps  2.5/s  ETA 10:00  loss=0.1235" in output.getvalue()
    assert "1 tasks done, 1 running" in output.getvalue()


class Launcher:
    """A real launcher with a stage that would run for hours."""

    def __init__(self, runs: Path) -> None:
        self.argv = [
            sys.executable, str(ROOT / "launchers" / "run.py"), "+recipe=toy_models", "only=[teacher_corpus]",
            "sizes.teacher_rows=1000000000",
        ]  # fmt: skip
        self.env = {**os.environ, "RUNS_DIR": str(runs)}
        self.process = subprocess.Popen(self.argv, cwd=ROOT, env=self.env, stderr=subprocess.PIPE, text=True)
        self.children: list[psutil.Process] = []
        self.stage_lock = runs / "toy_models" / "teacher_corpus" / ".lock"

    def wait_for_its_stage(self) -> None:
        wait_until(lambda: self.stage_lock.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[1]
        self.children = psutil.Process(self.process.pid).children()
        assert len(self.children) == 1, "the stage; what it starts itself may come and go"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for child in self.children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    started = Launcher(tmp_path / "runs")
    try:
        started.wait_for_its_stage()
        yield started
    finally:
        started.end()


def test_an_interrupted_launcher_leaves_no_child(launcher: Launcher) -> None:
    """SIGTERM is the same to it: tests/launchers/test_cancel.py sends that."""
    launcher.process.send_signal(signal.SIGINT)
    said = launcher.process.communicate(timeout=60)[1]
    assert launcher.process.returncode == 130
    assert "interrupted" in said and "Traceback" not in said
    assert all(gone(child) for child in launcher.children)


def test_a_killed_launcher_leaves_no_child_and_two_do_not_mix(launcher: Launcher) -> None:
    second = subprocess.run(launcher.argv, cwd=ROOT, env=launcher.env, capture_output=True, text=True)
    assert second.returncode == 2 and "another launcher is running it" in second.stderr
    assert not any(gone(child) for child in launcher.children), "the first goes on"
    launcher.process.kill()
    launcher.process.communicate()
    wait_until(lambda: all(gone(child) for child in launcher.children))
