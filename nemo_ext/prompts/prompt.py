"""Prompts: one small YAML file each (conf/prompt), few-shot examples in another (conf/few_shot), rendered from a row.

Light imports only: the login node checks prompts before anything is submitted.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import MISSING

from nemo_ext.prompts import placeholders
from nemo_ext.records.files import sha256_json

TEMPLATES = ("base", "chat")
EXAMPLES = "examples"


@dataclass(kw_only=True)
class Prompt:
    name: str = MISSING
    template: str = MISSING
    """`base`: plain text for /v1/completions. `chat`: messages for /v1/chat/completions."""
    system: str | None = None
    user: str = MISSING
    """Text with {row_key} placeholders and, where few-shot examples go, {examples}; see nemo_ext/prompts/placeholders.py for
    braces that are LaTeX."""
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
    user = _fill(prompt, prompt.user, {**row, EXAMPLES: examples})
    if prompt.template == "base":
        return user
    if prompt.template == "chat":
        system = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
        return [*system, {"role": "user", "content": user}]
    raise ValueError(_unknown_template(prompt))


def _fill(prompt: Prompt, text: str, values: Mapping[str, Any]) -> str:
    filled = []
    for piece in placeholders.pieces(text):
        if isinstance(piece, str):
            filled.append(piece)
            continue
        if values.get(piece.name) is None:
            raise ValueError(f"prompt {prompt.name} needs {{{piece.name}}}; the row has {sorted(values)}")
        filled.append(str(values[piece.name]))
    return "".join(filled)


def required_keys(prompt: Prompt) -> frozenset[str]:
    """The row keys that `user` names."""
    return placeholders.keys(prompt.user) - {EXAMPLES}


def prompt_hash(prompt: Prompt) -> str:
    """Changes with any letter the model would see."""
    return sha256_json(asdict(prompt))[:16]


def _unknown_template(prompt: Prompt) -> str:
    return f"prompt {prompt.name}: template={prompt.template!r}; it must be 'base' or 'chat'"


def check_prompt(prompt: Prompt) -> None:
    """Everything about a prompt that can be wrong before a row is seen.

    Raises:
        ValueError: an unknown template; a brace or a name that is no placeholder but looks like one; `user` without a
            row's value, or with {examples} and no few_shot, or the reverse; an example that lacks a key that `example`
            names, or has one it does not; an empty stop string; a system turn for a base model.
    """
    if prompt.template not in TEMPLATES:
        raise ValueError(_unknown_template(prompt))
    for field_name, text in (("user", prompt.user), ("example", prompt.example)):
        _check_syntax(prompt, field_name, text)
    if prompt.template == "base" and prompt.system is not None:
        raise ValueError(
            f"prompt {prompt.name}: template=base has no system turn, but system={prompt.system!r}. Set `system: null` "
            "and put its text first in `user`, or use `template: chat`"
        )
    if not required_keys(prompt):
        raise ValueError(
            f"prompt {prompt.name}: `user` holds no value of the row, so that every row would be asked the same. "
            "Write {problem}, or another key of the rows, where it belongs"
        )
    if not all(prompt.stop):
        raise ValueError(f"prompt {prompt.name}: stop={prompt.stop!r}; a stop string must not be empty")
    _check_few_shot(prompt)


def _check_syntax(prompt: Prompt, field_name: str, text: str) -> None:
    line = placeholders.unbalanced(text)
    if line is not None:
        raise ValueError(
            f"prompt {prompt.name}: `{field_name}` has a brace without a partner in {line[:200]!r}. A placeholder is "
            "written {problem}; LaTeX braces come in pairs, or as \\{ and \\}"
        )
    for found in placeholders.misspelt(text):
        raise ValueError(
            f"prompt {prompt.name}: `{field_name}` has {found}, which would stay as it is: a placeholder is lower-case "
            f"letters and _ in single braces, such as {{problem}}. If it is meant as text, write {{{found}}}"
        )


def _check_few_shot(prompt: Prompt) -> None:
    shown = EXAMPLES in placeholders.keys(prompt.user)
    base, _, chosen = prompt.name.partition("+")
    if prompt.few_shot and not shown:
        raise ValueError(
            f"prompt {prompt.name}: few_shot has {len(prompt.few_shot)} examples, but `user` has no {{examples}} where "
            "they would go. Add it, or set `few_shot: []`"
        )
    if shown and not prompt.few_shot:
        raise ValueError(
            f"prompt {prompt.name}: `user` has {{examples}}, but few_shot is empty. Name a set of conf/few_shot, as in "
            f"${{prompt:{base},math_text_detailed}}, or take {{examples}} out"
        )
    named = placeholders.keys(prompt.example)
    for number, shot in enumerate(prompt.few_shot, 1):
        where = f"prompt {prompt.name}: example {number}" + (f" of conf/few_shot/{chosen}.yaml" if chosen else "")
        missing, unused = named - {key for key, value in shot.items() if value}, shot.keys() - named
        if missing:
            raise ValueError(
                f"{where} has no {sorted(missing)[0]!r}, which `example` names; it has {sorted(shot)}. Add it, or use a "
                f"set whose examples have {sorted(named)}"
            )
        if unused:
            raise ValueError(
                f"{where} has {sorted(unused)[0]!r}, which `example` does not show; it shows {sorted(named)}. Name it "
                "in `example`, or take it out of the set"
            )
