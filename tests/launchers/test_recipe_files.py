"""Recipes are found by name, listed by folder, and added by one file."""

from pathlib import Path

import pytest

from launchers.planning import recipe_files
from tests.composing import compose_recipe
from tests.launchers.conftest import Launch

KNOWN = ["sft_full", "ablation/rows", "one_stage/grade", "one_stage/vote", "other/vote"]
OWN = """# @package _global_
# Grades rows, and keeps few of them. More about it.
#   python launchers/run.py +recipe=mine
defaults:
  - /stage/grade@stages.grade
  - /stage/downsample@stages.few
  - /stage/generate@stages.ask
  - _self_

sizes:
  few: ${size:5000,7}

stages:
  grade: { input: "${input}" }
  few: { after: [grade], input: "${stages.grade.output_dir}", num_rows: "${sizes.few}" }
  ask:
    after: [few]
    input: ${stages.few.output_dir}
    by_source: { "*": { prompt: "${prompt:generic_math}" } }
    model: ${teacher}
    server: ${server}
"""


@pytest.mark.parametrize(
    ("name", "found"),
    [("sft_full", "sft_full"), ("grade", "one_stage/grade"), ("one_stage/grade", "one_stage/grade"), ("other/vote", "other/vote")],
)  # fmt: skip
def test_a_bare_name_finds_its_folder(name: str, found: str) -> None:
    assert recipe_files.find(name, KNOWN) == found


def test_a_name_in_two_folders_is_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"\+recipe=vote: there are one_stage/vote and other/vote\. Say which"):
        recipe_files.find("vote", KNOWN)
    with pytest.raises(ValueError, match="there are vote and other/vote"):
        recipe_files.find("vote", ["vote", "other/vote"])


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"\+recipe=sft_ful: no recipe of that name; did you mean sft_full\?"):
        recipe_files.find("sft_ful", KNOWN)
    with pytest.raises(ValueError, match=r"did you mean one_stage/grade"):
        recipe_files.find("one_stag/grade", KNOWN)


def test_the_folder_is_no_part_of_a_run_s_name() -> None:
    for name in ("grade", "one_stage/grade"):
        assert compose_recipe(name, "input=rows.jsonl").run_name == "grade"


@pytest.mark.parametrize("columns", [60, 100, 300])
def test_the_list_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = recipe_files.listed().splitlines()
    assert max(map(len, lines)) <= columns
    titles = [line for line in lines if line and not line.startswith((" ", "Recipes", "+scale"))]
    assert titles == list(recipe_files.TITLES.values())
    rows = [line for line in lines if line.startswith("  ")]
    assert [line.split()[0] for line in rows if line.startswith("  sft")] == [
        "sft_1m",
        "sft_70b",
        "sft_full",
        "sft_full_release",
    ]
    assert len(rows) == len(recipe_files.short_names())
    cut = [line for line in rows if line.endswith(" ...")]
    assert bool(cut) == (columns < 100), "at 100 columns every sentence is whole"
    for line in cut:
        name, *words = line.removesuffix(" ...").split()
        (path,) = recipe_files.RECIPES.rglob(f"{name}.yaml")
        assert recipe_files.first_sentence(path.read_text()).split()[: len(words)] == words


@pytest.mark.parametrize("way", ["--config-dir", "searchpath"])
@pytest.mark.parametrize("scale", ["full", "tiny"])
def test_a_recipe_is_added_by_one_file(tmp_path: Path, launch_here: Launch, way: str, scale: str) -> None:
    """Its sizes at both scales are its own, what its servers take needs no word, and nothing else is touched."""
    folder = tmp_path / "conf"
    (folder / "recipe" / "further").mkdir(parents=True)
    (folder / "recipe" / "further" / "mine.yaml").write_text(OWN)
    (tmp_path / "rows.jsonl").touch()
    where = ["--config-dir", str(folder)] if way == "--config-dir" else [f"hydra.searchpath=[file://{folder}]"]
    words = [
        "+recipe=mine",
        f"input={tmp_path}/rows.jsonl",
        "dry_run=true",
        *(["+scale=tiny"] if scale == "tiny" else []),
    ]
    done = launch_here(*where, *words)
    assert done.returncode == 0, done.stderr
    tiny = scale == "tiny"
    assert f"num_rows: {7 if tiny else 5000}" in done.stdout
    assert f"/mine{'_tiny' if tiny else ''}/few" in done.stdout
    assert (
        "# ask: 1 node(s) x 0 GPUs, image base" if tiny else "# ask: 1 node(s) x 8 GPUs, image trtllm"
    ) in done.stdout
    again = launch_here(
        *where, *words, "sizes.few=3", "stages.ask.resources.time=01:00:00", "stages.ask.resources.nodes=1"
    )
    assert "num_rows: 3" in again.stdout and "limit 01:00:00" in again.stdout


def test_tiny_sizes_with_published_models() -> None:
    assert compose_recipe("sft_full", "tiny=true").sizes.train_iters == 240
    assert compose_recipe("sft_full", "+scale=tiny", "tiny=false").sizes.train_iters == 60000
