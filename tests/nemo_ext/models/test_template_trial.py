"""Templates that do not come to an end, or fill the memory, are refused in seconds; those that refuse a message are not."""

import shutil
from pathlib import Path

import pytest

from nemo_ext.models import template_trial
from nemo_ext.models.chat_template import ChatTemplate
from nemo_ext.models.chat_tokenizer import ChatTokenizer
from nemo_ext.models.model import Model
from tests.conftest import ROOT

TINY = ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_base"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
HUGE = "{{ 'a' * 9000000000 }}"
DOUBLING = "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    ignore = shutil.ignore_patterns("*.safetensors")
    return Model(name="m", hf_path=shutil.copytree(TINY, tmp_path / "m", ignore=ignore), context_length=1024)


@pytest.mark.parametrize("read", [ChatTemplate.of, ChatTokenizer])
@pytest.mark.parametrize(
    ("template", "said"),
    [(ENDLESS, "does not come to an end"), (HUGE, "MiB of memory"), (DOUBLING, "MiB of memory")],
)
def test_what_no_template_needs_is_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch, read, template: str, said: str
) -> None:
    if template == ENDLESS:  # the others need all of theirs on a slow machine, to fill the memory
        monkeypatch.setattr(template_trial, "CPU_SECONDS", 1)
    (Path(model.hf_path) / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=f"chat template .*{said}"):
        read(model)


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages[7].content.x.y }}", "plain"])
def test_a_template_that_refuses_the_trial_is_kept(model: Model, template: str) -> None:
    (Path(model.hf_path) / "chat_template.jinja").write_text(template)
    assert ChatTemplate.of(model).source == template
    assert ChatTokenizer(model).tokenizer.chat_template == template
