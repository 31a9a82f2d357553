"""The tokens at which a model's answer to a chat ends, read from its folder without transformers.

A base model that was fine-tuned elsewhere may close its answers with a token that none of its files names as an end
(Llama-3.1-8B names <|end_of_text|>, a chat template writes <|eot_id|>): servers would generate on to the limit.
"""

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from nemo_ext.models.chat_template import ChatTemplate
from nemo_ext.models.model import Model, chat_template_path

PROBE = "an answer"


def answer_end_ids(model: Model) -> tuple[int, ...]:
    """The template's end of turn, where it is a token of its own, and EOS: as ChatTokenizer.answer_end. Empty where the
    folder is not here."""
    return _ids(Path(model.hf_path).expanduser(), chat_template_path(model))


@cache
def _ids(folder: Path, override: Path | None) -> tuple[int, ...]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return ()
    template, tokenizer = ChatTemplate(folder, override), Tokenizer.from_file(str(file))
    eos = tokenizer.token_to_id(template.special_tokens.get("eos_token", ""))
    turn = tokenizer.encode(_turn_end(template), add_special_tokens=False).ids[-1:]
    closing = [index for index in turn if index in tokenizer.get_added_tokens_decoder()]
    return tuple(dict.fromkeys(index for index in (*closing, eos) if index is not None))


def _turn_end(template: ChatTemplate) -> str:
    """What the template writes after an answer; "" where it refuses such messages."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
    try:
        text = template.render(messages, add_generation_prompt=False)
    except ValueError:
        return ""
    return text.partition(PROBE)[2].rstrip("\n")  # ChatML-like templates end a turn with a newline
