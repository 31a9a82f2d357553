"""The same code under transformers 4, as in the NeMo image: its tests of tokenizers, chat and model folders, again."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.contract.wheels import missing, unpacked

WHY = missing("transformers4")
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500), pytest.mark.skipif(bool(WHY), reason=WHY)]

TESTS = (
    "tests/nemo_ext/models/test_chat.py",
    "tests/nemo_ext/models/test_chat_rendering.py",
    "tests/nemo_ext/models/test_chat_templates.py",
    "tests/nemo_ext/models/test_hub_folder.py",
    "tests/nemo_ext/megatron/test_shape.py",
    "tests/nemo_ext/megatron/test_export.py",
    "tests/nemo_ext/megatron/test_hf.py",
    "tests/recipes/stages/training/test_prepare_sft.py",
)
OPENING = """
import sys, transformers
from pathlib import Path
from nemo_ext.models.chat_tokenizer import ChatTokenizer
from nemo_ext.models.model import Model
assert transformers.__version__.startswith("4."), transformers.__version__
folders = sorted(path.parent for path in Path("nemo_ext/serving/embedded/models").glob("*/config.json"))
assert folders
for folder in folders:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("Ann has 3 apples.", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "Ann has 3 apples.", folder
    assert model(input_ids=ids).logits.isfinite().all(), folder
    assert ChatTokenizer(Model(name=folder.name, hf_path=str(folder), context_length=64)).count("Ann has 3 apples.")
"""


def run(*argv: str, timeout_s: float) -> None:
    path = os.pathsep.join([str(unpacked("transformers4")), str(ROOT)])
    done = subprocess.run(
        [sys.executable, *argv], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


def test_the_shipped_models_open() -> None:
    run("-c", OPENING, timeout_s=300)


@pytest.mark.parametrize("file", TESTS)
def test_the_suites_own_tests_pass(file: str) -> None:
    run("-m", "pytest", "-x", "-p", "no:cacheprovider", file, timeout_s=1200)
