"""A file of conf/user that would be multiplied out is refused at once; ordinary aliases are not."""

from pathlib import Path

import pytest

from launchers.planning.user_config import check


def test_aliases_of_aliases_are_counted_and_not_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]
    (tmp_path / "default.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"default\.yaml: its aliases \(\*name\) stand for [\d,]+ values"):
        check(tmp_path)


def test_a_value_that_contains_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("a: &a [*a, 1]")
    with pytest.raises(ValueError, match="stand for"):
        check(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "a: &a {b: 1}\nc: *a\n", "# @package _global_\ndefaults:\n  - override /cluster: mine\n"]
)
def test_ordinary_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "default.yaml").write_text(text)
    check(tmp_path)
    check(tmp_path / "absent")


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(ValueError, match=r"default\.yaml is not YAML"):
        check(tmp_path)
