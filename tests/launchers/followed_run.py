"""A run folder as a launcher leaves it, and stand-ins for Slurm's clients that answer from files and count their calls."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from launchers.following import status_table
from launchers.following.launcher_record import Record
from launchers.following.run_status import RunStatus, look, status
from launchers.following.stage_status import Row

CLIENT = """#!/bin/bash
printf '%s\\n' "${0##*/} $*" >>"$CALLS"
answer=${0}.answer
[ -x "$answer" ] && exec "$answer" "$@"
[ -f "$answer" ] && cat "$answer"
exit 0
"""
FIELDS = ["state", "reason", "nodes", "used", "start", "end", "restarts", "status", "script"]
NO_ACCOUNTS = "#!/bin/bash\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n"


class Clients:
    """squeue, sacct and scancel on PATH. squeue knows the jobs added, as Slurm 22.05 prints them; sacct is disabled."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.calls_file = folder / "bin", folder / "calls"
        self.bin.mkdir()
        for name in ("squeue", "sacct", "scancel"):
            self.script(name, CLIENT)
        self.script("sacct.answer", NO_ACCOUNTS)
        self.lines: list[str] = []

    @staticmethod
    def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> "Clients":
        made = Clients(folder)
        monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(made.calls_file))
        monkeypatch.setenv("SLURM_BITSTR_LEN", "64")
        return made

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, name: str, text: str) -> None:
        (self.bin / f"{name}.answer").unlink(missing_ok=True)
        (self.bin / f"{name}.answer").write_text(text)

    def add(self, job: str, state: str, run: Path | None = None, stage: str = "", **more: str) -> None:
        """A line of squeue's; jobs of `stage` have its script."""
        script = f"{run}/{stage}/submit.sh" if run else ""
        told = {"reason": "None", "nodes": "", "used": "0:00", "start": "N/A", "end": "N/A", "restarts": "0"}
        told |= {"status": "0", "script": script, "state": state} | more
        self.lines.append("|".join([job, *(told[field] for field in FIELDS)]))
        self.answer("squeue", "".join(f"{line}\n" for line in self.lines))

    def forget(self) -> None:
        self.lines = []
        self.answer("squeue", "")

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


class Run:
    """Stages are made one after another, each a job after those named. Ages are counted back from `now`, a moment that
    stays, so that what is written late has the age it was given all the same."""

    def __init__(self, folder: Path, executor: str = "slurm") -> None:
        self.folder = folder
        self.executor = executor
        self.stages: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.now = time.time()
        self.began = self.now - 100

    def stage(
        self,
        name: str,
        job: str | None = None,
        after: tuple[str, ...] = (),
        parts: tuple[str, ...] = (),
        shards: int = 0,
    ) -> None:
        self.stages[name] = {"after": list(after), "parts": list(parts), "shards": shards}
        width = len(str(shards - 1))
        for part in [*parts, *(f"shard_{index:0{width}d}" for index in range(shards))] or [""]:
            (self.folder / name / part).mkdir(parents=True, exist_ok=True)
        if job is not None:
            tasks = shards or len(parts)
            before = [number for other in after for number in self.jobs[other]["jobs"]]
            script = self.folder / name / "submit.sh"
            script.touch()
            os.utime(script, (self.began, self.began))
            array = f"0-{tasks - 1}" if tasks else ""
            self.jobs[name] = {"job": job, "jobs": [job], "offsets": [0], "after": before, "array": array}
            self.jobs[name]["script"] = str(script)
            (self.folder / "jobs.json").write_text(json.dumps(self.jobs))
        self.record()

    def record(self, **more: Any) -> Record:
        facts: dict[str, Any] = {"pid": 1, "host": "login1", "process_started": 0.0, "started": self.began}
        facts |= {"ended": self.began + 1} | more
        record = Record(executor=self.executor, stages=self.stages, todo=list(self.stages), **facts)
        (self.folder / "launcher.json").write_text(json.dumps(asdict(record)))
        return record

    def write(self, path: str, content: Any, age_s: float = 10.0) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        at = self.now - age_s
        os.utime(file, (at, at))

    def done(self, task: str, age_s: float = 10.0) -> None:
        self.write(f"{task}/_DONE", {}, age_s)
        self.write(f"{task}/manifest.json", {"seconds": 7.0, "rows_out": 1204, "dropped": {"long": 31}}, age_s)

    def beat(self, task: str, age_s: float = 1.0, **more: Any) -> None:
        beat = {"done": 120, "total": 3000, "unit": "steps", "rate": 2.0, "eta_s": 1440.0, "time": self.now - age_s}
        self.write(f"{task}/heartbeat.json", beat | more, age_s)

    def status(self) -> RunStatus:
        return status(look(self.folder))

    def row(self, name: str) -> Row:
        """`stage` or `stage/variant`."""
        stage, _, part = name.partition("/")
        return next(row for row in self.status().rows if (row.stage, row.part) == (stage, part))

    def text(self, width: int | None = None) -> str:
        """As status.py shows it."""
        return "\n".join(line for line, _ in status_table.lines(self.status(), width))
