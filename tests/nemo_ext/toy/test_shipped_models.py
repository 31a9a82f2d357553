"""The models in the repository are what +recipe=toy_models and +recipe=toy_coder make, and fit the prompts the pipeline sends them."""

import json

import pytest
from omegaconf import OmegaConf

from launchers.planning import resolvers
from nemo_ext.prompts.prompt import Prompt, prompt_hash
from nemo_ext.records.files import sha256_file
from nemo_ext.serving import embedded

MODELS = resolvers.ROOT / "nemo_ext" / "serving" / "embedded" / "models"
NAMES = {"tiny_teacher": "toy_models", "tiny_base": "toy_models", "tiny_coder": "toy_coder"}


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_of_the_provenance(name):
    provenance = json.loads((MODELS / name / "provenance.json").read_text())
    assert provenance["recipe"] == NAMES[name]
    present = {path.name for path in (MODELS / name).iterdir()} - {"provenance.json"}
    assert present == set(provenance["files"])
    for file, digest in provenance["files"].items():
        assert sha256_file(MODELS / name / file) == digest, file


@pytest.mark.parametrize("name", NAMES)
def test_small_enough_to_ship(name):
    assert (MODELS / name / "model.safetensors").stat().st_size <= 3 * 10**6


SUBJECTS = ("value", "equation", "function", "sequence")
PROMPTS = {
    "tiny_teacher": [
        ("math_base", "toy_math"), ("math_base", "toy_gsm8k"), ("problem_inspired", "toy_new_math"),
        ("problem_similar", "toy_new_gsm8k"), ("generic_math", None),
    ],
    "tiny_coder": [
        *(("openmath_code", f"toy_code_{kind}") for kind in ("math", "gsm8k", *SUBJECTS)),
        *(("openmath_code_masked", f"toy_masked_{source}") for source in ("math", "gsm8k")),
        *(("mask_solution", f"toy_masking_{source}") for source in ("math", "gsm8k")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("model", PROMPTS)
def test_it_was_trained_on_the_prompts_of_today(model):
    """Whoever changes one of these prompts must rebuild the models, or they are asked what they never saw."""
    trained = json.loads((MODELS / model / "provenance.json").read_text())["corpus"]["prompts"]
    today = {}
    for name in PROMPTS[model]:
        prompt = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Prompt), resolvers.prompt(*name)))
        assert isinstance(prompt, Prompt)
        today[prompt.name] = prompt_hash(prompt)
    assert trained == today


def test_the_package_that_serves_them_is_where_they_are():
    assert MODELS.parent.samefile(embedded.__path__[0])
