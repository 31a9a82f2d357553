"""The batch scripts of real recipes, as a person on a cluster would read them; each is sound bash.

The golden files have what is a stage's own: its options, values and commands; launchers/slurm/sbatch.sh follows in all.
After a wanted change: UPDATE_GOLDEN=1 pytest tests/launchers/test_sbatch_golden.py, and read the diff.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from launchers.slurm.sbatch import ROOT
from tests.launchers.golden_scripts import GOLDEN, SCRIPTS, Script


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_is_the_golden_one(script: Script) -> None:
    text, path = script.head(), GOLDEN / f"{script.name}.sh"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_script_is_of_a_test() -> None:
    assert {path.stem for path in GOLDEN.glob("*.sh")} == {script.name for script in SCRIPTS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files with the scripts as Slurm gets them."""
    folder = tmp_path_factory.mktemp("scripts")
    for script in SCRIPTS:
        (folder / f"{script.name}.sh").write_text(script.text())
    return sorted(folder.iterdir())


def test_scripts_are_bash(whole: list[Path]) -> None:
    for path in whole:
        subprocess.run(["bash", "-n", path], check=True, timeout=20)


def test_scripts_pass_shellcheck(whole: list[Path]) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    # SC1091: /etc/profile and the like are the site's; SC2016: words for python, not for bash
    files = [*whole, ROOT / "launchers" / "enroot.conf.sh"]
    done = subprocess.run(
        ["shellcheck", "--shell=bash", "--exclude=SC1091,SC2016", *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
