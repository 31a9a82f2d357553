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
    ["stages.train.lr=1", "stages.evaluate.sampling.temperature=0.7", "server.concurrency=3", "+scale=tiny"],
)
def test_what_takes_effect_is_taken(word: str) -> None:
    overrides.refuse_lost(compose_recipe("openmathinstruct2", word), [word])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "stages.evaluate.model.hf_path=/other",
            r"stages\.evaluate\.model is \$\{student\}, and so is that of .*\btrain\b.*student\.hf_path=/other changes it for all",
        ),
        (
            "stages.solve_seeds.server.concurrency=3",
            r"is \$\{server\}, and so is that of .*server\.concurrency=3 changes",
        ),
    ],
)
def test_a_key_of_what_other_stages_have_too(word: str, said: str) -> None:
    """It was changed for all of them: a model to evaluate became the one that training begins with."""
    with pytest.raises(ValueError, match=said):
        overrides.refuse_lost(compose_recipe("openmathinstruct2", word), [word])


def test_one_of_its_own_is_taken() -> None:
    word = "stages.evaluate.model={name: other, hf_path: /other, context_length: 64}"
    cfg = compose_recipe("sft_full", word)
    overrides.refuse_lost(cfg, [word])
    assert (cfg.stages.evaluate.model.name, cfg.stages.train.model.name) == ("other", cfg.student.name)
    alone = "stages.generate.server.concurrency=3"  # the one stage with that server
    overrides.refuse_lost(compose_recipe("generate", "input=x", alone), [alone])


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
