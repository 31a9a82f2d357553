"""Keys of values that a function makes: a change of one would be lost, and is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from launchers.planning import overrides
from tests.composing import compose_recipe
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("stages.evaluate.prompt.system=hi", "stages.evaluate.prompt is made by ${prompt:generic_math}"),
        ("++stages.prepare_benchmarks.benchmarks.gsm8k.path=/x", "benchmarks is made by ${benchmarks:${benchmarks}}"),
    ],
)
def test_a_key_of_what_a_function_makes(word: str, made: str) -> None:
    with pytest.raises(ValueError) as raised:
        overrides.refuse_lost(compose_recipe("openmathinstruct2", word), [word])
    assert made in str(raised.value)


@pytest.mark.parametrize(
    "word",
    ["stages.evaluate.server.concurrency=3", "stages.evaluate.model.name=m", "stages.train.lr=1", "+scale=tiny"],
)
def test_what_takes_effect_is_taken(word: str) -> None:
    overrides.refuse_lost(compose_recipe("openmathinstruct2", word), [word])


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("stages.train.variants.mispaired_10.lr=0.5", "${per_variant:prepare_sft,data}"),
        ("+stages.evaluate.variants.mispaired_10.seed=7", "${students_of:average}"),
    ],
)
def test_a_variant_that_follows_another_stages(tmp_path: Path, word: str, made: str) -> None:
    argv = [sys.executable, "launchers/run.py", "+recipe=ablation_noise", "+scale=tiny", "dry_run=true"]
    ran = subprocess.run(
        [*argv, f"run_dir={tmp_path / 'x'}", word], cwd=ROOT, capture_output=True, text=True, check=False
    )
    place = word.lstrip("+").partition(".mispaired_10")[0]
    assert ran.returncode == 2 and f"{place} is made by {made}" in " ".join((ran.stdout + ran.stderr).split())
