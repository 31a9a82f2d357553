"""Request bodies, checked: what this server cannot do is refused, never ignored."""

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from nemo_ext.models.chat_template import ChatTemplate
from nemo_ext.serving.embedded.sequence import SamplingParameters

MAX_LOGPROBS = 20
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
SEED_RANGE = 2**63

SHARED_FIELDS = {
    "model", "n", "temperature", "top_p", "top_k", "seed", "stop", "max_tokens", "stream", "stream_options",
    "logprobs", "ignore_eos", "user", "stop_token_ids",
}  # fmt: skip
COMPLETION_FIELDS = SHARED_FIELDS | {"prompt", "add_special_tokens", "echo"}
CHAT_FIELDS = SHARED_FIELDS | {
    "messages", "max_completion_tokens", "top_logprobs", "add_generation_prompt", "chat_template_kwargs",
}  # fmt: skip
RESERVED = {"messages", "add_generation_prompt", "self"}
# Fields other servers act on, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,), "suffix": ("",), "logit_bias": ({},), "presence_penalty": (0,),
    "frequency_penalty": (0,), "repetition_penalty": (1,), "min_p": (0,), "min_tokens": (0,),
    "use_beam_search": (False,), "length_penalty": (1,), "skip_special_tokens": (True,),
    "response_format": ({"type": "text"},), "tools": ([],), "tool_choice": ("none",), "store": (False,),
}  # fmt: skip


MAX_TOKEN_CHARACTERS = 256  # no token stands for more
MAX_SHOWN = 200  # characters of a value that a message repeats


def shown(value: Any) -> str:
    """Its repr, cut where it is long: a message does not send a value of a megabyte back."""
    text = repr(value[:MAX_SHOWN] if isinstance(value, str | list) else value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


class BadRequest(ValueError):
    """The reply's status and message."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class GenerationRequest:
    chat: bool
    prompts: list[tuple[int, ...]]
    prompt_texts: list[str]
    """What `echo` gives back: each prompt as it was sent, or its tokens' text."""
    num_choices: int
    """Per prompt."""
    parameters: SamplingParameters
    stream: bool
    include_usage: bool


def parse(
    body: Any,
    *,
    chat: bool,
    model: str,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    context_length: int,
    max_queue: int,
) -> GenerationRequest:
    """Raises BadRequest with what is wrong and what may be sent."""
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object; it is {type(body).__name__}")
    _refuse_unknown(body, CHAT_FIELDS if chat else COMPLETION_FIELDS)
    if body.get("model") not in (None, model):
        raise BadRequest(f"model {shown(body['model'])} is not served here; this server has {model!r}", status=404)
    num_choices = _integer(body, "n", 1, 1, 1024)
    _check_size(body, num_choices, context_length, max_queue)
    prompts = _chat_prompts(body, tokenizer, template) if chat else _completion_prompts(body, tokenizer)
    echo, stream = not chat and _boolean(body, "echo", False), _boolean(body, "stream", False)
    if echo and stream:
        raise BadRequest("echo=true with stream=true is not supported by the embedded server; send one of them")
    _check_prompts(prompts, tokenizer, context_length)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or set(options) - {"include_usage"}:
        raise BadRequest(f"stream_options={shown(options)}; it may hold include_usage only")
    return GenerationRequest(
        chat=chat,
        prompts=prompts,
        prompt_texts=_prompt_texts(body["prompt"], prompts, tokenizer) if echo else [],
        num_choices=num_choices,
        parameters=_sampling(body, chat, context_length, echo),
        stream=stream,
        include_usage=_boolean(options, "include_usage", False),
    )


def _refuse_unknown(body: dict[str, Any], known: set[str]) -> None:
    for name, value in body.items():
        if name in known or value is None or value in NEUTRAL.get(name, ()):
            continue
        raise BadRequest(
            f"{name[:MAX_SHOWN]}={shown(value)} is not supported by the embedded server; it takes {sorted(known)}"
        )


def _check_size(body: dict[str, Any], num_choices: int, context_length: int, max_queue: int) -> None:
    """Before anything is tokenised: raises BadRequest for what can never be served."""
    prompt = body.get("prompt")
    count = len(prompt) if isinstance(prompt, list) and not _is_ids(prompt) else 1
    if count * num_choices > max_queue:
        raise BadRequest(
            f"{count} prompts of n={num_choices} are {count * num_choices} sequences, and this server's max_queue is "
            f"{max_queue}: send fewer at once"
        )
    messages = body.get("messages")
    messages = messages if isinstance(messages, list) else []
    texts = [prompt] if isinstance(prompt, str) else prompt if isinstance(prompt, list) else []
    sizes = [len(each) for each in texts if isinstance(each, str)]
    sizes.append(sum(len(str(each.get("content", ""))) for each in messages if isinstance(each, dict)))
    if max(sizes) > context_length * MAX_TOKEN_CHARACTERS:
        raise BadRequest(
            f"the prompt has {max(sizes):,} characters; the context length is {context_length} tokens, which cannot hold it"
        )


def _number(body: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadRequest(f"{name}={shown(value)}; it must be a number from {low} to {high}")
    return float(value)


def _integer(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadRequest(f"{name}={shown(value)}; it must be an integer from {low} to {high}")
    return value


def _boolean(body: dict[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequest(f"{name}={shown(value)}; it must be true or false")
    return value


def _sampling(body: dict[str, Any], chat: bool, context_length: int, echo: bool) -> SamplingParameters:
    top_p = _number(body, "top_p", 1.0, 0.0, 1.0)
    if top_p == 0.0:
        raise BadRequest("top_p=0.0; it must be above 0 (temperature 0 is greedy)")
    top_k = _integer(body, "top_k", 0, -1, 1 << 31)
    return SamplingParameters(
        max_tokens=_max_tokens(body, chat, context_length, least=0 if echo else 1),
        temperature=_number(body, "temperature", 1.0, 0.0, 100.0),
        top_p=top_p,
        top_k=max(top_k, 0),  # -1 also means off, as in vLLM
        seed=None if body.get("seed") is None else _integer(body, "seed", 0, -SEED_RANGE, SEED_RANGE - 1),
        stop=_stop(body.get("stop")),
        stop_token_ids=_token_ids(body.get("stop_token_ids")),
        ignore_eos=_boolean(body, "ignore_eos", False),
        num_logprobs=_num_logprobs(body, chat),
        echo=echo,
    )


def _max_tokens(body: dict[str, Any], chat: bool, context_length: int, least: int) -> int:
    """Longer than the context is allowed: the choice then ends at the context with finish_reason length."""
    default = context_length if chat else DEFAULT_COMPLETION_TOKENS
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return _integer(body, name, default, least, 1 << 31)


def _stop(value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value or []
    if not isinstance(strings, list) or not all(isinstance(s, str) and s for s in strings):
        raise BadRequest(f"stop={shown(value)}; it must be a non-empty string or a list of them")
    return tuple(strings)


def _token_ids(value: Any) -> frozenset[int]:
    if not (value in (None, []) or _is_ids(value)):
        raise BadRequest(f"stop_token_ids={shown(value)}; it must be a list of token ids")
    return frozenset(value or ())


def _num_logprobs(body: dict[str, Any], chat: bool) -> int | None:
    if not chat:
        return None if body.get("logprobs") is None else _integer(body, "logprobs", 0, 0, MAX_LOGPROBS)
    wanted = _boolean(body, "logprobs", False)
    top = _integer(body, "top_logprobs", 0, 0, MAX_LOGPROBS)
    if top and not wanted:
        raise BadRequest(f"top_logprobs={top} needs logprobs=true")
    return top if wanted else None


def _completion_prompts(body: dict[str, Any], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """A string, a list of strings, a list of token ids, or a list of those lists."""
    prompt = body.get("prompt")
    if isinstance(prompt, str) or _is_ids(prompt):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt or not all(isinstance(p, str) or _is_ids(p) for p in prompt):
        raise BadRequest("prompt must be a string, a list of strings, a list of token ids, or a list of such lists")
    special = _boolean(body, "add_special_tokens", True)
    return [
        tuple(tokenizer.encode(p, add_special_tokens=special).ids) if isinstance(p, str) else tuple(p) for p in prompt
    ]


def _prompt_texts(prompt: Any, ids: list[tuple[int, ...]], tokenizer: Tokenizer) -> list[str]:
    sent = prompt if isinstance(prompt, list) and not _is_ids(prompt) else [prompt]
    decoded = (tokenizer.decode(list(each), skip_special_tokens=False) for each in ids)
    return [each if isinstance(each, str) else text for each, text in zip(sent, decoded, strict=True)]


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _chat_prompts(body: dict[str, Any], tokenizer: Tokenizer, template: ChatTemplate) -> list[tuple[int, ...]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(_is_message(m) for m in messages):
        raise BadRequest('messages must be a list of {"role": text, "content": text}')
    variables = body.get("chat_template_kwargs") or {}
    if not isinstance(variables, dict):
        raise BadRequest(f"chat_template_kwargs={shown(variables)}; it must be an object")
    if reserved := sorted(set(variables) & RESERVED):
        raise BadRequest(f"chat_template_kwargs may not hold {', '.join(reserved)}, which the request itself sets")
    add = _boolean(body, "add_generation_prompt", True)
    try:
        text = template.render(messages, add_generation_prompt=add, **variables)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return [tuple(tokenizer.encode(text, add_special_tokens=False).ids)]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _check_prompts(prompts: list[tuple[int, ...]], tokenizer: Tokenizer, context_length: int) -> None:
    vocabulary = tokenizer.get_vocab_size()
    for prompt in prompts:
        if not prompt:
            raise BadRequest("a prompt has no tokens; the model needs at least one")
        if len(prompt) >= context_length:
            raise BadRequest(
                f"the prompt has {len(prompt)} tokens; the context length is {context_length} tokens, "
                "and at least one must be left to generate"
            )
        if min(prompt) < 0 or max(prompt) >= vocabulary:
            raise BadRequest(f"a token id is outside 0 .. {vocabulary - 1}: {min(prompt)} .. {max(prompt)}")
