"""Messages to prompt text with the checkpoint's Jinja template, sandboxed: it came with a downloaded model."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class GenerationTag(Extension):
    """`{% generation %}`: marks the assistant's tokens for training masks in transformers; here it prints its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads this name)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, indent: int | None = None) -> str:
    """As transformers: no HTML escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatTemplate:
    """Args:
    folder: the checkpoint's, for chat_template.jinja or tokenizer_config.json, and the special tokens.
    override: a template file to use instead.
    """

    def __init__(self, folder: Path, override: Path | None) -> None:
        path = folder / "tokenizer_config.json"
        tokenizer_config = json.loads(path.read_text()) if path.is_file() else {}
        self.special_tokens = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in tokenizer_config.items()
            if name.endswith("_token") and isinstance(value, str | dict)
        }
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        source = _source(folder, override, tokenizer_config)
        self.template = environment.from_string(source) if source else None

    def render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool, **variables: Any) -> str:
        """The prompt text; its special tokens are written out, so tokenise it without adding any.

        Raises:
            ValueError: the checkpoint has no template, or the template refuses the messages.
        """
        if self.template is None:
            raise ValueError("this model has no chat template; use /v1/completions or set model.chat_template")
        try:
            return self.template.render(
                messages=messages, add_generation_prompt=add_generation_prompt, **self.special_tokens, **variables
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise ValueError(f"the chat template refused the messages: {error}") from error


def _source(folder: Path, override: Path | None, tokenizer_config: dict[str, Any]) -> str | None:
    for path in (override, folder / "chat_template.jinja"):
        if path is not None and path.is_file():
            return path.read_text()
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {entry["name"]: entry["template"] for entry in template}
        return named.get("default")
    return template
