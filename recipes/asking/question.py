"""A question to a model, before it is known which model answers."""

from dataclasses import dataclass
from typing import Literal

from nemo_ext.prompts.prompt import Prompt
from nemo_ext.serving.client.requests import Prompt as Text
from nemo_ext.serving.client.requests import Request, Sampling, request_key
from recipes.asking.served import ServedStage, stop_token_ids

NOTHING_SAMPLED = Sampling(0.0, 1.0, 0, 1, (), None)
"""For questions whose reply is what a model thinks of the prompt."""


@dataclass(frozen=True)
class Question:
    """A request without the model's part of its key. Equal questions are asked once."""

    prompt: Text
    sampling: Sampling
    index: int = 0
    """Which of the samples of one prompt and sampling."""
    variant: str = ""
    """What else decides the reply, such as the settings of a tool loop."""
    rendered: bool = False
    returns: Literal["text", "pooling", "logprobs"] = "text"

    def request(self, model_key: str) -> Request:
        key = request_key(model_key, self.prompt, self.sampling, self.index, self.variant)
        return Request(key, self.prompt, self.sampling, self.rendered, returns=self.returns)


def greedy(cfg: ServedStage, prompt: Prompt, max_tokens: int) -> Sampling:
    return Sampling(0.0, 1.0, 0, max_tokens, tuple(prompt.stop), None, stop_token_ids(cfg, prompt))
