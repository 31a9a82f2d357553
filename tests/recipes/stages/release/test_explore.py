import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.explorer import explorer
from nemo_ext.records import manifest
from recipes import run_stage
from recipes.stages.release import explore
from tests.conftest import ROOT
from tests.nemo_ext.explorer.explored_runs import OPTIONS, sample, write_evaluation, write_run
from tests.recipes.conftest import write_config

CUT = """
import os, signal, sys
from pathlib import Path
from nemo_ext.explorer import parts
from recipes import run_stage

write, left = parts._write, int(sys.argv[2])

def writing(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*arguments)

parts._write = writing
run_stage.run(Path(sys.argv[1]))
"""
"""Runs a stage, and kills it when it has written so many parts."""


def config(folder: Path, **keys: Any) -> Path:
    return write_config(folder, "explore", {"title": "a run", **keys})


def parts(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("parts/**/*.js"))}


def test_the_manifest_knows_what_is_on_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", problems=12, samples=3)
    run_stage.run(config(run / "explore", inputs=[str(run)]))
    known = manifest.read(run / "explore")
    figures = known["figures"]
    assert {key: figures[key] for key in ("models", "problems", "samples", "stages")} == {
        "models": 2,
        "problems": 12,
        "samples": 72,
        "stages": 1,
    }
    files = [*(run / "explore").glob("parts/catalog.js"), *(run / "explore").glob("parts/[pr]*s/**/*.js")]
    assert figures["files"] == len(files) and figures["bytes"] == sum(path.stat().st_size for path in files)
    assert figures["largest_file_bytes"] == max(path.stat().st_size for path in files)
    assert {"index.html", "catalog.js"} <= {Path(each["path"]).name for each in known["outputs"]}
    assert {Path(each["path"]).parent.name for each in known["inputs"]} == {"base", "tuned", "filter"}


def test_it_is_made_anew_when_an_evaluation_changes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", problems=4, samples=2)
    path = config(run / "explore", inputs=[str(run)])
    run_stage.run(path)
    digest = json.loads((run / "explore" / "_DONE").read_text())["config_hash"]
    assert manifest.out_of_date(run / "explore", digest) is None
    before = parts(run / "explore")
    write_evaluation(run / "evaluate" / "base", "base", [sample(1, 0, True)] * 2)
    assert "changed" in str(manifest.out_of_date(run / "explore", digest))
    (run / "explore" / "parts" / "left over.js").touch()
    run_stage.run(path)
    after = parts(run / "explore")
    assert "parts/left over.js" not in after and after != before


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", problems=5, samples=3)
    for name in ("one", "two"):
        run_stage.run(config(tmp_path / name, inputs=[str(run)], kept_rows=50, dropped_rows=10))
    assert parts(tmp_path / "one") == parts(tmp_path / "two")
    run_stage.run(config(tmp_path / "three", inputs=[str(run)], kept_rows=50, dropped_rows=10, seed=1))
    assert parts(tmp_path / "one") != parts(tmp_path / "three"), "another sample of the rows"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": ["x"], "kept_rows": 0}, "kept_rows=0: at least 1"),
        ({"inputs": ["x"], "max_text_chars": -1}, "at least 1"),
    ],
)
def test_settings_that_make_no_page_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explore.check(explore.Config(name="explore", title="t", **keys))


def test_a_torn_row_stops_it_with_its_place(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "run" / "evaluate", "base", [sample(1, 0, True)])
    with (tmp_path / "run" / "evaluate" / "output.jsonl").open("a") as handle:
        handle.write('{"problem": "cu')
    with pytest.raises(ValueError, match=r"output.jsonl:2: not a JSON object"):
        run_stage.run(config(tmp_path / "explore", inputs=[str(tmp_path / "run")]))
    assert not (tmp_path / "explore" / "index.html").exists()


def test_killed_anywhere_it_leaves_a_whole_page_or_none(tmp_path: Path) -> None:
    """Over an older page with other parts: whatever index.html is there, all parts of its catalog are there too."""
    run = tmp_path / "run"
    rows = [sample(n, s, s > 1, generation=f"{n} {s} " * 3000) for n in range(25) for s in range(4)]
    write_evaluation(run / "evaluate", "base", rows)
    path = config(tmp_path / "explore", inputs=[str(run)])
    run_stage.run(path)
    whole = parts(tmp_path / "explore")
    building = tmp_path / "explore" / ".parts.building"
    for written in (0, 3):
        argv = [sys.executable, "-c", CUT, str(path), str(written)]
        ended = subprocess.run(argv, cwd=ROOT, stderr=subprocess.PIPE, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert building.exists() and parts(tmp_path / "explore") == whole, "the older page is still there"
    run_stage.run(path)
    assert parts(tmp_path / "explore") == whole and not building.exists()
    assert (tmp_path / "explore" / "index.html").exists()


def test_stopped_between_the_old_parts_and_the_new_there_is_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(tmp_path / "explore", inputs=[str(write_run(tmp_path / "run", problems=4, samples=2))])
    run_stage.run(path)

    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == explorer.PARTS:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(explorer.os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            explorer.write(tmp_path / "explore", [str(tmp_path / "run")], OPTIONS)
    assert not (tmp_path / "explore" / "index.html").exists()
    run_stage.run(path)
    assert (tmp_path / "explore" / "index.html").exists() and len(parts(tmp_path / "explore")) > 5
