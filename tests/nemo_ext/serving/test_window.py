"""Prompts that cannot fit are known before a server is asked."""

from pathlib import Path

import pytest

from nemo_ext.serving.client.requests import Request, Sampling
from nemo_ext.serving.completions.context_window import Window


def _request(prompt: str | list[dict[str, str]], max_tokens: int = 100) -> Request:
    return Request("k", prompt, Sampling(1.0, 1.0, 0, max_tokens, (), 0))


def test_short_prompts_are_not_tokenised(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("no tokenizer")
    assert Window(2000, str(tmp_path)).refusal(_request("x" * 1000)) is None


@pytest.mark.parametrize("chat", [False, True])
def test_long_ones_are_counted(tiny_checkpoint: Path, chat: bool) -> None:
    text = "Nadia has 12 coins. " * 60
    prompt = [{"role": "user", "content": text}] if chat else text
    why = Window(500, str(tiny_checkpoint)).refusal(_request(prompt, 300))
    assert why is not None and "max_tokens=300 it exceeds the window of 500. Lower sampling.max_tokens" in why
    count = int(why.split("has ")[1].split()[0].replace(",", ""))
    assert Window(count + 300, str(tiny_checkpoint)).refusal(_request(prompt, 300)) is None
    assert Window(count + 299, str(tiny_checkpoint)).refusal(_request(prompt, 300)) is not None


def test_without_a_tokenizer_the_server_decides(tmp_path: Path) -> None:
    assert Window(10, str(tmp_path)).refusal(_request("x" * 1000)) is None
