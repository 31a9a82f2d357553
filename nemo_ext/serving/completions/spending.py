"""Count what completions took: tokens by what became of them, the share of each server, and money if prices are known."""

from collections import Counter
from typing import Any

from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.reply_flaws import content_class
from nemo_ext.serving.client.requests import Completion


class Spending:
    """Counts over completions that arrived, whichever run of the stage they come from."""

    def __init__(self) -> None:
        self._prompt = 0
        self._generated: Counter[str] = Counter()
        self._completions: Counter[str] = Counter()
        self._replicas: Counter[str] = Counter()
        self._attempts = 0
        self._uncounted = 0

    def add(self, completion: Completion) -> None:
        kind = content_class(completion.text, completion.finish_reason)
        self._completions[kind] += 1
        self._generated[kind] += completion.num_generated_tokens or 0
        self._uncounted += completion.num_generated_tokens is None
        self._replicas[completion.replica or "unknown"] += 1
        if completion.choice == 0:  # the samples of one request share its prompt
            self._prompt += completion.num_prompt_tokens or 0
        self._attempts += completion.attempts - 1

    @property
    def tokens(self) -> dict[str, int]:
        """`prompt`, `generated`, and of these `generated_<kind>` where some are not ok."""
        parts = {f"generated_{kind}": count for kind, count in sorted(self._generated.items()) if kind != "ok"}
        return {"prompt": self._prompt, "generated": self._generated.total(), **parts}

    def figures(self, config: ClientConfig) -> dict[str, Any]:
        """What was spent, for the manifest."""
        figures: dict[str, Any] = {
            "completions": dict(sorted(self._completions.items())),
            "by_server": dict(sorted(self._replicas.items())),
        }
        if self._uncounted:
            figures["completions_without_token_counts"] = self._uncounted
        if self._attempts:
            figures["attempts_repeated"] = self._attempts
        prices = config.price_per_million_prompt_tokens, config.price_per_million_generated_tokens
        if None not in prices and not self._uncounted:
            cost = self._prompt * (prices[0] or 0) + self._generated.total() * (prices[1] or 0)
            figures["cost"] = round(cost / 1e6, 4)
        return figures
