"""Messages -> token ids and loss mask. The only place that uses a chat template for training.

The prompt and the answer are tokenised apart, at the border where generation starts when the model is served: a token
that straddled it in training could never be produced in use.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from nemo_ext.model import Model, chat_template_path

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Sample:
    """Token ids [L] and, for each, 1 if the model is to learn to produce it."""

    tokens: list[int]
    loss_mask: list[int]


class ChatTokenizer:
    """A model's tokenizer with the chat template it is trained and served with."""

    def __init__(self, model: Model) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model.hf_path)
        template = chat_template_path(model)
        if template is not None:
            self.tokenizer.chat_template = template.read_text()
        self.name = model.name

    def require_template(self) -> None:
        """Raises ValueError when there is none, as with most base models' tokenizers."""
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"model {self.name}: its tokenizer has no chat template. Set model.chat_template to a file of "
                "nemo_ext/chat_templates, such as llama3.jinja."
            )

    @property
    def template_hash(self) -> str:
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()[:16]

    def count(self, text: str) -> int:
        """Tokens of a plain text, without BOS or EOS."""
        return len(self.ids(text))

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def batch_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def chat_texts(self, messages: Messages, answer: str) -> tuple[str, str]:
        """The text up to where the answer starts, and the answer with its end-of-turn marker.

        Raises:
            ValueError: the template rewrites the prompt once there is an answer, so that no border exists.
        """
        prompt = self._render(messages, add_generation_prompt=True)
        whole = self._render([*messages, {"role": "assistant", "content": answer}], add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise ValueError(
                f"model {self.name}: its chat template does not keep the prompt when an answer follows it"
            )
        return prompt, whole[len(prompt) :].rstrip("\n")  # ChatML-like templates end a turn with a newline

    def _render(self, messages: Messages, add_generation_prompt: bool) -> str:
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        assert isinstance(text, str), "tokenize=False gives text"
        return text

    def base_texts(self, prompt: str, answer: str) -> tuple[str, str]:
        """The same for plain text: BOS where the tokenizer has one, and EOS after the answer."""
        return (self.tokenizer.bos_token or "") + prompt, answer + str(self.tokenizer.eos_token)


def sample(prompt_ids: list[int], answer_ids: list[int]) -> Sample:
    """Train on the answer alone."""
    return Sample(prompt_ids + answer_ids, [0] * len(prompt_ids) + [1] * len(answer_ids))
