"""Chat messages -> the text a model sees, with the model's own Jinja template.

Sandboxed, because the template came with a downloaded model, and without transformers, because clients and the login
node import this. The text equals transformers' apply_chat_template(tokenize=False): a tool-integrated trace goes on
from it as plain text, sent to /v1/completions with add_special_tokens=false.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nemo_ext.models.hub_folder import read_json
from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.models.template_trial import within_limits

FILES = ("chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json")


class GenerationTag(Extension):
    """`{% generation %}`: marks the assistant's tokens for training masks in transformers; here it prints its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads this name)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, indent: int | None = None) -> str:
    """The `tojson` filter of transformers: no HTML escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatTemplate:
    """Args:
    folder: the checkpoint's, for chat_template.jinja or tokenizer_config.json, and the special tokens.
    override: a template file to use instead.

    Raises:
        ValueError: a file that is not JSON, or a template with a syntax error, or one that takes too much time or memory.
    """

    def __init__(self, folder: Path, override: Path | None) -> None:
        settings = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
        self.special_tokens = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in settings.items()
            if name.endswith("_token") and isinstance(value, str | dict)
        }
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self.source = _source(folder, override, settings)
        if source := self.source:  # compiled there, too: Jinja works out constant expressions as it compiles
            name = f"{override or folder}: the chat template"
            within_limits(lambda messages: environment.from_string(source).render(messages=messages), name)
        try:
            self.template = environment.from_string(self.source) if self.source else None
        except jinja2.TemplateError as error:
            raise ValueError(f"{override or folder}: the chat template is not valid Jinja: {error}") from error

    @classmethod
    def of(cls, model: Model) -> "ChatTemplate":
        """The template of a configured model: model.chat_template's file, or else its own.

        Raises:
            ValueError: neither a folder nor a hub id; no such file of nemo_ext/models/chat_templates; a broken template.
        """
        return cls(_folder(model), chat_template_path(model))

    @property
    def hash(self) -> str:
        """The same as ChatTokenizer's template_hash, which prepare_sft notes."""
        return template_hash(self.source)

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The prompt text. Its special tokens are written out, BOS once if the template has it: tokenise it without
        adding any.

        Raises:
            ValueError: the checkpoint has no template, or the template refuses the messages.
        """
        if self.template is None:
            raise ValueError(
                "this model has no chat template. Ask it with a `base` prompt (/v1/completions), or set "
                "model.chat_template to a file of nemo_ext/models/chat_templates, such as llama3.jinja"
            )
        given = {"tools": None, "documents": None, **self.special_tokens, **variables}
        try:
            return self.template.render(messages=messages, add_generation_prompt=add_generation_prompt, **given)
        except (jinja2.TemplateError, TypeError) as error:
            raise ValueError(f"the chat template refused the messages: {error}") from error


def template_hash(source: str | None) -> str:
    return hashlib.sha256(str(source).encode()).hexdigest()[:16]


def _folder(model: Model) -> Path:
    path = Path(model.hf_path).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.hf_path.count("/") != 1:
        raise ValueError(
            f"model {model.name}: hf_path={model.hf_path!r} is not a folder here, and no hub id of the form owner/name; "
            "its chat template and special tokens are read from there"
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model.hf_path, allow_patterns=list(FILES)))


def _source(folder: Path, override: Path | None, settings: dict[str, Any]) -> str | None:
    for path in (override, folder / "chat_template.jinja"):
        if path is not None and path.is_file():
            return path.read_text()
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {entry["name"]: entry["template"] for entry in template}
        return named.get("default")
    return template
