"""prepare_sft with worker processes: the same bytes, no hang, no growth."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.recipes.conftest import write_config

FILES = ("output.jsonl", "dropped.jsonl", "audit.txt", *(
    f"{split}/{name}" for split in ("train", "validation") for name in ("tokens.bin", "loss_mask.bin", "offsets.npy", "data.json")
))  # fmt: skip


def mixed(count: int) -> list[dict]:
    """Rows of several shapes and lengths, some to be dropped, some to be cut."""
    draw = random.Random(0)
    rows: list[dict] = []
    for index in range(count):
        text = " ".join(str(draw.randrange(1000)) for _ in range(draw.randrange(1, 60)))
        rows.append(
            draw.choice(
                [
                    {"input": text, "output": text[::-1] or "1"},
                    {"id": f"row{index}", "text": text},
                    {
                        "messages": [
                            {"role": "user", "content": text},
                            {"role": "assistant", "content": "\u00e9" + text},
                        ]
                    },
                    {"messages": []},
                    {"text": " "},
                ]
            )
        )
    return rows


def test_the_result_does_not_depend_on_workers(run, rows, model, tmp_path: Path) -> None:
    folder = rows(mixed(700))
    (tmp_path / "in1" / "output-1.jsonl").write_text("{\n" + "".join(json.dumps(row) + "\n" for row in mixed(30)))
    keys = {"input": folder, "model": model, "seq_length": 96, "overlong": "truncate", "validation_fraction": 0.1}
    runs = [run("prepare_sft", folder=f"w{workers}", workers=workers, **keys) for workers in (1, 2)]
    assert len(runs[0].output) > 200 and runs[0].manifest["figures"]["truncated_samples"] > 10
    assert set(runs[0].reasons) == {"malformed_json", "no_assistant_turn", "no_text", "prompt_too_long"}
    for name in FILES:
        one, two = ((ran.folder / name).read_bytes() for ran in runs)
        assert one == two, f"{name} depends on the number of workers"
    facts = [{key: ran.manifest[key] for key in ("tokens", "figures", "dropped", "rows_out")} for ran in runs]
    assert facts[0] == facts[1]


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Its workers; other children, such as a template's trial, come and go meanwhile."""
    found = []
    for child in process.children():
        with suppress(psutil.Error):
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
    return found


def test_a_killed_worker_fails_the_stage(run, rows, model, tmp_path: Path) -> None:
    """As the kernel does it when memory runs out."""

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if found := workers_of(psutil.Process()):
                os.kill(found[0].pid, signal.SIGKILL)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(RuntimeError, match="one of 2 worker processes ended without a word: it was killed.*memory"):
        run("prepare_sft", input=rows([{"text": "1 2 3"}] * 5000), model=model, workers=2)
    killer.join()
    assert not workers_of(psutil.Process()), "the other worker has ended too"
    assert not (tmp_path / "out" / "train" / "data.json").exists()
    assert not (tmp_path / "out" / "output.jsonl").exists()


MEASURE = """
import re, resource, sys
from pathlib import Path
from recipes import run_stage
if __name__ == "__main__":
    for config in sys.argv[1:]:
        run_stage.run(Path(config))
        # not ru_maxrss, which begins with that of the process that forked this one
        own = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
        print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.soak
def test_memory_does_not_grow_with_the_rows(rows, model, tmp_path: Path) -> None:
    """Three times the rows, 50 MB more as they are read and 40 MB as lists of tokens, take no more memory."""
    draw = random.Random(0)
    data = [
        {
            "input": " ".join(str(draw.randrange(10**6)) for _ in range(30)),
            "output": "pens and coins " * 60,
            "note": "-" * 4000,
        }
        for _ in range(4500)
    ]
    (tmp_path / "measure.py").write_text(MEASURE)
    configs = [
        write_config(
            tmp_path / f"x{times}", "prepare_sft", {"input": rows(data * times), "model": model, "workers": 2}
        )
        for times in (1, 3)
    ]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "measure.py"), *map(str, configs)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, later = ([int(word) / 1024 for word in line.split()] for line in done.stdout.splitlines())
    growth = [after - before for before, after in zip(first, later, strict=True)]
    assert max(growth) < 15, f"MiB of the stage and of its largest worker: {first}, {later}"
