"""The checkpoints folder, without Megatron."""

import shutil
from pathlib import Path

import pytest

from nemo_ext.megatron.checkpoint_folders import check_space, complete_steps, read_model, select_steps, step_folder


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    for step in (1000, 10000, 200):
        step_folder(tmp_path, step).mkdir()
    (tmp_path / "step_0000300.partial").mkdir()
    (tmp_path / "latest.json").write_text("{}")
    assert complete_steps(tmp_path) == [200, 1000, 10000]
    assert complete_steps(tmp_path / "absent") == []


def test_steps_are_selected_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (1000, 10000):
        step_folder(tmp_path, step).mkdir()
    assert select_steps(tmp_path, [1000]) == [tmp_path / "step_0001000"]
    for wrong in ([100], [], [1000, 1000]):
        with pytest.raises(ValueError, match=r"distinct steps out of the complete \[1000, 10000\]"):
            select_steps(tmp_path, wrong)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no model\.json"):
        read_model(tmp_path)


def test_too_little_space_is_an_error_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    check_space(tmp_path, 9 * 10**8)
    with pytest.raises(OSError, match=r"needs 1\.00 GB and 1\.00 GB are free"):
        check_space(tmp_path, 10**9)
