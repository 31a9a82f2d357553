"""Chat templates equal transformers', and cannot reach out of their sandbox."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from nemo_ext.serving.embedded.chat import ChatTemplate

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'What is 1 < 2 & "3"?'}]


def test_renders_as_transformers(tiny_checkpoint: Path) -> None:
    template = ChatTemplate(tiny_checkpoint, None)
    reference = AutoTokenizer.from_pretrained(tiny_checkpoint)
    for add in (True, False):
        expected = reference.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=add)
        assert template.render(MESSAGES, add_generation_prompt=add) == expected


def _template(folder: Path, source: str) -> ChatTemplate:
    override = folder / "override.jinja"
    override.write_text(source)
    return ChatTemplate(folder, override)


def test_an_override_with_a_generation_mark_and_variables(tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}{% generation %}{{ m.content | tojson }}{% endgeneration %}{% endfor %}{{ extra }}"
    )
    rendered = _template(tmp_path, source).render(MESSAGES[1:], add_generation_prompt=True, extra="!")
    assert rendered == '"What is 1 < 2 & \\"3\\"?"!'


def test_a_template_may_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="roles must alternate"):
        _template(tmp_path, "{{ raise_exception('roles must alternate') }}").render(
            MESSAGES, add_generation_prompt=True
        )


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unsafe"):
        _template(tmp_path, "{{ messages.__class__.__mro__[1].__subclasses__() }}").render(
            MESSAGES, add_generation_prompt=True
        )


def test_no_template_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.chat_template"):
        ChatTemplate(tmp_path, None).render(MESSAGES, add_generation_prompt=True)
