"""Prompts: one small YAML file each (conf/prompt), few-shot examples in another (conf/few_shot), rendered from a row.

Light imports only: the login node checks prompts before anything is submitted.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import MISSING

from nemo_ext.files import sha256_json

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(kw_only=True)
class Prompt:
    name: str = MISSING
    template: str = MISSING
    """`base`: plain text for /v1/completions. `chat`: messages for /v1/chat/completions."""
    system: str | None = None
    user: str = MISSING
    """Text with {row_key} placeholders and, where few-shot examples go, {examples}."""
    example: str = ""
    """How one few-shot example reads; its placeholders are the example's keys."""
    separator: str = "\n\n"
    """Between two examples, and after the last."""
    few_shot: list[dict[str, str]] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    """Strings that end a completion; the text returned stops before them."""


def render(prompt: Prompt, row: Mapping[str, Any]) -> str | list[dict[str, str]]:
    """The prompt for one row: a string (`base`) or chat messages (`chat`).

    Values are put in once and not looked at again, so a problem that contains `{examples}` stays as it is.

    Raises:
        ValueError: a placeholder the row has no value for; an unknown `template`.
    """
    examples = "".join(_fill(prompt, prompt.example, shot) + prompt.separator for shot in prompt.few_shot)
    user = _fill(prompt, prompt.user, {**row, "examples": examples})
    if prompt.template == "base":
        return user
    if prompt.template == "chat":
        system = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
        return [*system, {"role": "user", "content": user}]
    raise ValueError(f"prompt {prompt.name}: template={prompt.template!r}; it must be 'base' or 'chat'")


def _fill(prompt: Prompt, text: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        if values.get(match[1]) is None:
            raise ValueError(f"prompt {prompt.name} needs {{{match[1]}}}; the row has {sorted(values)}")
        return str(values[match[1]])

    return PLACEHOLDER.sub(value, text)


def prompt_hash(prompt: Prompt) -> str:
    """Changes with any letter the model would see."""
    return sha256_json(asdict(prompt))[:16]
