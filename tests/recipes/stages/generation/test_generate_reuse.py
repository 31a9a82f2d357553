"""What was paid for is used again: with more samples, other shards, and whatever else leaves a request as it was."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.rows.row import in_shard
from nemo_ext.serving.client.requests import Completion, line_of
from nemo_ext.serving.completions.earlier_runs import EarlierCompletions, earlier_files
from tests.nemo_ext.serving.fake_server import FakeServer
from tests.recipes.conftest import Ran, external

PROMPT = {"name": "p", "template": "base", "user": "Q: {problem}"}
SEEDS = [{"id": f"r{i}", "problem": f"problem {i}", "problem_source": "math"} for i in range(24)]


def _config(model: dict[str, Any], server: FakeServer, source: str, **more: Any) -> dict[str, Any]:
    num_samples = more.pop("num_samples", 2)
    return {
        "model": model,
        "server": external(server),
        "input": source,
        "by_source": {"math": {"prompt": PROMPT, "num_samples": num_samples}},
        "sampling": {"temperature": 0.7, "max_tokens": 50},
        **more,
    }


def _set_aside(folder: Path, number: int = 1) -> None:
    folder.rename(folder.with_name(f"{folder.name}.old{number}"))


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["id"], row["sample_index"]


def test_more_samples(run, rows, model, fake, tmp_path: Path) -> None:
    server, source = fake(), rows(SEEDS)
    before: Ran = run("generate", **_config(model, server, source))
    assert len(server.bodies) == 48
    _set_aside(tmp_path / "out")
    after: Ran = run("generate", **_config(model, server, source, num_samples=5))
    assert len(server.bodies) == 24 * 5, "only the new ones are asked for"
    assert [row for row in after.output if row["sample_index"] < 2] == before.output
    _set_aside(tmp_path / "out", 2)
    run("generate", **_config(model, server, source, num_samples=5))
    assert len(server.bodies) == 24 * 5
    _set_aside(tmp_path / "out", 3)
    run("generate", **_config(model, server, source, num_samples=5, reuse_completions=False))
    assert len(server.bodies) == 24 * 10


def test_other_sampling_is_asked_for_again(run, rows, model, fake, tmp_path: Path) -> None:
    server, source = fake(), rows(SEEDS)
    run("generate", **_config(model, server, source))
    _set_aside(tmp_path / "out")
    run("generate", **_config(model, server, source, sampling={"temperature": 0.8, "max_tokens": 50}))
    assert len(server.bodies) == 96


@pytest.mark.parametrize(("old", "new"), [(1, 4), (4, 1), (2, 6), (3, 2)])
def test_other_shards(run, rows, model, fake, tmp_path: Path, old: int, new: int) -> None:
    server, source = fake(), rows(SEEDS)

    def all_shards(count: int) -> list[dict[str, Any]]:
        output: list[dict[str, Any]] = []
        for shard in range(count):
            folder = f"stage/shard_{shard}" if count > 1 else "stage"
            config = _config(model, server, source, shard=shard, shards=count)
            output += run("generate", folder=folder, **config).output
        return sorted(output, key=_key)

    before = all_shards(old)
    _set_aside(tmp_path / "stage")
    assert all_shards(new) == before
    assert len(server.bodies) == 48


@given(old=st.integers(1, 12), new=st.integers(1, 12), row=st.integers(0, 10_000))
def test_every_row_finds_the_shard_it_was_in(tmp_path_factory, old: int, new: int, row: int) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    held = next(shard for shard in range(old) if in_shard(str(row), shard, old))
    for shard in range(old):
        folder = run_dir / "stage.old1" / f"shard_{shard}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"shard: {shard}\nshards: {old}\n")
        (folder / "completions.jsonl").touch()
    now = next(shard for shard in range(new) if in_shard(str(row), shard, new))
    output = run_dir / "stage" / f"shard_{now}" if new > 1 else run_dir / "stage"
    found = [path.parent.name for path in earlier_files(output, now, new, "completions.jsonl")]
    assert f"shard_{held}" in found
    if new % old == 0:
        assert len(found) == 1, "and reads no other one"


def test_errors_and_cut_lines_are_not_reused(tmp_path: Path) -> None:
    path = tmp_path / "completions.jsonl"
    good = Completion("a1", "text", "stop", 1, 2, 0.1, None, 1, seed=4)
    bad = Completion("b2", "", None, 0, 0, 0.1, "HTTP 400: too long", 1, "400")
    path.write_bytes(line_of(good) + line_of(bad) + b'garbage\n{"key": "c3", "te')
    earlier = EarlierCompletions([path])
    assert earlier.find("a1") == good
    assert [earlier.find(key) for key in ("b2", "c3", "d4")] == [None, None, None]
    earlier.close()
