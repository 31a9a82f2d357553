"""The likelihood of a solution: the mean log-probability of its tokens after the prompt that it answers."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_ext.prompts.prompt import Prompt, render
from nemo_ext.prompts.replies import mean_logprob
from nemo_ext.rows.row import Row
from recipes.asking.question import NOTHING_SAMPLED, Question
from recipes.asking.served import ServedStage

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Likelihood:
    def __init__(self, cfg: ServedStage, prompt: Prompt) -> None:
        from nemo_ext.models.chat_template import ChatTemplate

        self.cfg, self.prompt = cfg, prompt
        self._template = ChatTemplate.of(cfg.model)

    def question(self, row: Row, solution: str) -> Question:
        text = self._context(row) + solution
        return Question(text, NOTHING_SAMPLED, variant="likelihood", rendered=True, returns="logprobs")

    def worth(self, row: Row, reply: str) -> float | None:
        """Of the solution's tokens alone: the server says it of every token but the first."""
        context = self._tokenizer.encode(self._context(row), add_special_tokens=False)
        return mean_logprob.parse(reply, skip=len(context.ids) - 1)

    def _context(self, row: Row) -> str:
        prompt = render(self.prompt, row)
        return prompt if isinstance(prompt, str) else self._template.render(prompt)

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(Path(self.cfg.model.hf_path) / "tokenizer.json"))
