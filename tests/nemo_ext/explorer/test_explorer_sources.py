import os
from pathlib import Path

import pytest

from nemo_ext.explorer.sources import find
from tests.nemo_ext.explorer.explored_runs import finish, sample, write_evaluation, write_lines


def test_shards_are_one_source_and_variants_are_many(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for shard in (0, 1):
        write_lines(run / "solve" / f"shard_{shard}" / "output.jsonl", [{"n": shard}])
        finish(run / "solve" / f"shard_{shard}", "generate", 1, {"failed": 2})
    for variant in ("small", "large"):
        write_lines(run / "subset" / variant / "output.jsonl", [{"n": 1}])
        finish(run / "subset" / variant, "downsample", 1)
    write_lines(run / "running" / "output.jsonl", [{"n": 1}])
    (run / "train").mkdir()
    finish(run / "train", "train_sft", 0)
    found = {each.label: each for each in find([str(run)], run / "explore")}
    assert set(found) == {"solve", "subset/small", "subset/large"}
    assert [len(found["solve"].files), found["solve"].rows("rows_in"), found["solve"].dropped] == [2, 6, {"failed": 4}]


def test_results_set_aside_and_the_page_itself_are_left_out(tmp_path: Path) -> None:
    for name in ("filter", "filter.old1", "explore"):
        write_lines(tmp_path / name / "output.jsonl", [{"n": 1}])
        finish(tmp_path / name, "filter", 1)
    assert [each.label for each in find([str(tmp_path)], tmp_path / "explore")] == ["filter"]


def test_stages_come_in_the_order_they_finished(tmp_path: Path) -> None:
    for when, name in enumerate(("b", "a", "c")):
        write_lines(tmp_path / name / "output.jsonl", [{"n": 1}])
        finish(tmp_path / name, "filter", 1)
        os.utime(tmp_path / name / "_DONE", (when, when))
    assert [each.label for each in find([str(tmp_path)], tmp_path / "x")] == ["b", "a", "c"]


def test_an_input_is_a_stage_a_file_or_a_pattern_and_counts_once(tmp_path: Path) -> None:
    for run in ("one", "two"):
        write_evaluation(tmp_path / run / "evaluate" / "base", "base", [sample(1, 0, True)])
    write_lines(tmp_path / "mine.jsonl", [{"n": 1}])
    stage, pattern, file = (
        str(tmp_path / "one" / "evaluate" / "base"),
        f"{tmp_path}/*/evaluate/base",
        str(tmp_path / "mine.jsonl"),
    )
    assert [each.label for each in find([stage], tmp_path / "x")] == ["base"]
    found = find([stage, pattern, file], tmp_path / "x")
    assert [each.label for each in found] == ["one/evaluate/base", "two/evaluate/base", "mine"]
    assert [each.is_evaluation for each in found] == [True, True, False]
    labels = [each.label for each in find([str(tmp_path / "one"), str(tmp_path / "two")], tmp_path / "x")]
    assert labels == ["one/evaluate/base", "two/evaluate/base"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "nothing to explore: .*nowhere does not exist"),
        ("none/*", "does not exist"),
        ("empty", "no finished stage with rows"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        find([str(tmp_path / given)], tmp_path / "x")


def test_a_torn_scores_file_is_named(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "evaluate", "base", [sample(1, 0, True)])
    (tmp_path / "evaluate" / "scores.json").write_text('{"model"')
    with pytest.raises(ValueError, match=r"scores.json is not JSON"):
        find([str(tmp_path)], tmp_path / "x")


def test_rows_without_generations_are_no_evaluation(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "chosen", "base", [{"id": 1, "problem": "p", "answer": "3"}])
    assert [each.is_evaluation for each in find([str(tmp_path)], tmp_path / "x")] == [False]
