"""Stages of our own making and stand-ins for Slurm's programs, so that the executor is tested without Slurm."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launchers.planning.plan import PlannedStage, Task
from recipes.stage import Process, Resources, Stage, main_process

RUN = Path("/runs/sft")

# Each writes its argv to $CALLS; answers come from files beside it.
CLIENT = """#!/bin/bash
printf '%s\\n' "${0##*/} $*" >>"$CALLS"
answer=${0}.answer
[ -x "$answer" ] && exec "$answer" "$@"
[ -f "$answer" ] && cat "$answer"
exit 0
"""
SBATCH = """#!/bin/bash
case "$*" in *--test-only*) exit 0 ;; esac
n=$(cat "$0.n" 2>/dev/null || echo 100); echo $((n+1)) >"$0.n"; echo "$n;lab"
"""


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


def chain(run: Path, tasks: int = 3) -> list[PlannedStage]:
    return [
        stage("prepare", main_process("@/config.yaml"), run=run),
        stage("solve", main_process("@/config.yaml"), run=run, after=("prepare",), tasks=tasks),
        stage("train", main_process("@/config.yaml"), run=run, after=("prepare", "solve")),
    ]


class Cluster:
    """Slurm's clients in a folder at the front of PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin, self.calls_file = folder / "bin", folder / "calls"
        self.bin.mkdir()
        for name in ("sbatch", "scancel", "squeue", "scontrol"):
            self.script(name, CLIENT)
        self.script("sbatch.answer", SBATCH)
        monkeypatch.setenv("PATH", f"{self.bin}:{os.environ['PATH']}")
        monkeypatch.setenv("CALLS", str(self.calls_file))

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, name: str, text: str) -> None:
        (self.bin / f"{name}.answer").write_text(text)

    def scontrol(self, **shown: str) -> None:
        """What `scontrol show <name>` prints."""
        arms = "\n".join(f"{name}) cat <<'END'\n{text}\nEND\n;;" for name, text in shown.items())
        self.script("scontrol.answer", f'#!/bin/bash\ncase "$2" in\n{arms}\nesac\n')

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
