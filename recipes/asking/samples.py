"""Samples of a row's prompt: what the stages that draw them share.

A row is known by its `id`, a sample of it by `id` and `sample_index`. Of a row that is a sample already, each new one is
a sample of the same `id` with an index that no other sample of it gets: of 2 samples with 3 each, 0 to 5.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nemo_ext.prompts.prompt import Prompt
from nemo_ext.rows.row import content_id
from nemo_ext.serving.client.requests import Sampling
from recipes.asking.question import Question
from recipes.asking.served import SamplingConfig, stop_token_ids
from recipes.asking.tool_use import ToolStage

if TYPE_CHECKING:
    from nemo_ext.rows.row import Row


@dataclass(kw_only=True)
class SampledStage(ToolStage):
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Greedy by default."""
    seed: int = 0
    """Of the samples' own seeds: each follows from this, what it is a sample of, and its number."""
    samples_per_request: int = 1
    """Up to so many samples of a prompt in one request, where the server honours `n`: the prompt is sent once. They then
    share a seed, and their token counts are split by the length of the texts. With tools always 1."""


def check_samples(cfg: SampledStage, num_samples: int, place: str, one_by_one: str = "") -> None:
    """Raises ValueError for samples that would be the same, fewer than one, or in one request where they cannot be.

    Args:
        place: the key that has num_samples.
        one_by_one: the settings, where they are so, by which each sample is asked for by itself.
    """
    if num_samples < 1:
        raise ValueError(f"{place}.num_samples={num_samples}: it must be at least 1")
    if cfg.samples_per_request < 1:
        raise ValueError(f"stages.{cfg.name}.samples_per_request={cfg.samples_per_request}: it must be at least 1")
    if cfg.samples_per_request > 1 and one_by_one:
        raise ValueError(
            f"stages.{cfg.name}.samples_per_request={cfg.samples_per_request}: with {one_by_one} each sample is asked for "
            "by itself; set it to 1"
        )
    if num_samples > 1 and cfg.sampling.temperature == 0:
        raise ValueError(
            f"{place}: num_samples={num_samples} at temperature 0 are the same one so many times. Set "
            f"stages.{cfg.name}.sampling.temperature (0.7 is customary), or num_samples to 1"
        )


class Sampler:
    """Makes the questions that ask for samples of a prompt. With tools they are text, which a trace can go on from."""

    def __init__(self, cfg: SampledStage, prompt: Prompt) -> None:
        from nemo_ext.models.chat_template import ChatTemplate

        self.cfg, self.prompt = cfg, prompt
        self.stop_token_ids = stop_token_ids(cfg, prompt)
        self._template = ChatTemplate.of(cfg.model) if cfg.use_tools and prompt.template == "chat" else None

    def questions(self, row: "Row", seeds: Mapping[int, int]) -> Iterator[Question]:
        """`seeds`: number of a sample -> its seed."""
        from nemo_ext.prompts.prompt import render

        prompt, rendered = render(self.prompt, row), False
        if self._template is not None and not isinstance(prompt, str):
            prompt, rendered = self._template.render(prompt), True
        for number, seed in seeds.items():
            yield Question(prompt, self._sampling(seed), number, self.cfg.tools_variant, rendered)

    def _sampling(self, seed: int) -> Sampling:
        drawn = self.cfg.sampling
        stop = tuple(self.prompt.stop)
        return Sampling(drawn.temperature, drawn.top_p, drawn.top_k, drawn.max_tokens, stop, seed, self.stop_token_ids)


def earlier_index(row: "Row") -> int:
    """Which sample a row is that an earlier stage has made; 0 also of a row that is none.

    Raises:
        ValueError: `sample_index` is no count.
    """
    index = row.get("sample_index")
    if index is None:
        return 0
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ValueError(
            f"row {row['id']!r}: sample_index={index!r}; it says which sample of its id a row is, a whole number from 0. "
            "Where the column means something else, leave it out: columns={sample_index: null}"
        )
    return index


def sample_name(row: "Row") -> str:
    """What the seeds of a row's samples follow from. The first of earlier samples has that of the row itself."""
    index = earlier_index(row)
    return f"{row['id']}\x1f{index}" if index else str(row["id"])


def seed_of(seed: int, text: str, number: int) -> int:
    """A sample's own seed, of 31 bits: from what it is a sample of, not from its place, so that more rows or samples change
    none of the others."""
    return int(content_id(str(seed), text, str(number))[:8], 16) >> 1
