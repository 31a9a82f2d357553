"""`echo`: the prompt given back with the log-probability of each of its tokens, as lm-evaluation-harness asks for it."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from nemo_ext.models.model import Model
from nemo_ext.serving.embedded.config import Config
from nemo_ext.serving.embedded.engine import choice_key
from nemo_ext.serving.embedded.run import load_engine
from nemo_ext.serving.embedded.sequence import SamplingParameters, Sequence
from tests.nemo_ext.serving.conftest import Running

PROMPTS = ["Ann has 5 coins and buys 17 more.", "Zoë", "李雷 has 12 tickets. How many now?"]


def _choices(server: Running, **fields: Any) -> list[dict[str, Any]]:
    status, reply = server.post("/v1/completions", {"max_tokens": 1, "temperature": 0, "echo": True, **fields})
    assert status == 200, reply
    return reply["choices"]


def _expected(folder: Path, ids: list[int]) -> np.ndarray[Any, Any]:
    """Log-probability of each token but the first."""
    with torch.inference_mode():
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


@pytest.mark.parametrize("as_ids", [False, True])
def test_prompts_are_scored_as_transformers_scores_them(
    shared_server: Running, tiny_checkpoint: Path, as_ids: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    for prompt, tokens, choice in zip(
        PROMPTS, ids, _choices(shared_server, prompt=ids if as_ids else PROMPTS, logprobs=1), strict=True
    ):
        told = choice["logprobs"]
        assert {len(values) for values in told.values()} == {len(tokens) + 1}
        assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
        np.testing.assert_allclose(told["token_logprobs"][1:-1], _expected(tiny_checkpoint, tokens), atol=1e-4)
        assert choice["text"].startswith(tokenizer.decode(tokens) if as_ids else prompt)
        best = [max(top.values()) for top in told["top_logprobs"][1:]]
        assert all(value <= high for value, high in zip(told["token_logprobs"][1:], best, strict=True))
        assert told["text_offset"][:2] == [0, len(told["tokens"][0])]


def test_a_prompt_alone_is_scored_as_among_others(shared_server: Running) -> None:
    together = _choices(shared_server, prompt=PROMPTS, logprobs=3, max_tokens=0, n=2)
    assert [choice["index"] for choice in together] == list(range(6))
    for number, prompt in enumerate(PROMPTS):
        [alone] = _choices(shared_server, prompt=prompt, logprobs=3, max_tokens=0)
        for choice in together[2 * number : 2 * number + 2]:
            assert choice | {"index": 0} == alone
        assert alone["text"] == prompt and alone["finish_reason"] == "length"


def test_nothing_is_generated_at_max_tokens_zero(shared_server: Running) -> None:
    body = {"prompt": "Ann has 5", "max_tokens": 0, "echo": True, "stop": ["a"]}
    status, reply = shared_server.post("/v1/completions", body)
    assert status == 200 and reply["usage"]["completion_tokens"] == 0
    assert reply["choices"][0]["text"] == "Ann has 5" and reply["choices"][0]["logprobs"] is None


def test_echo_without_logprobs_goes_before_the_text(shared_server: Running) -> None:
    body = {"prompt": ["Ann has 5", "Bo"], "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    _, plain = shared_server.post("/v1/completions", body)
    _, echoed = shared_server.post("/v1/completions", body | {"echo": True})
    texts = [choice["text"] for choice in plain["choices"]]
    assert [choice["text"] for choice in echoed["choices"]] == ["Ann has 5" + texts[0], "Bo" + texts[1]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"stream": True}, "echo=true with stream=true"), ({"echo": "yes"}, "echo='yes'; it must be true or false")],
)
def test_refusals_of_echo(shared_server: Running, fields: dict[str, Any], message: str) -> None:
    status, reply = shared_server.post("/v1/completions", {"prompt": "x", "echo": True, **fields})
    assert status == 400 and message in reply["error"]["message"]


@pytest.mark.parametrize("echo", [True, False])
def test_the_one_token_generated_is_listed_even_when_it_ends_the_text(tiny_checkpoint: Path, echo: bool) -> None:
    """lm-evaluation-harness leaves out the last entry of a scored prompt, so that there must be one."""

    async def main() -> Sequence:
        engine = load_engine(Config(), Model(name="tiny", hf_path=str(tiny_checkpoint), context_length=512))
        engine._is_eos[:] = True
        parameters = SamplingParameters(1, 0.0, 1.0, 0, None, (), False, 1, echo=echo)
        done = asyncio.get_running_loop().create_future()
        sequence = Sequence(0, (5, 6, 7), parameters, choice_key(None, 0), None, None, done)
        engine.submit([sequence])
        engine.step()
        assert sequence.done.done() and sequence.text == ""
        return sequence

    sequence = asyncio.run(main())
    assert (len(sequence.prompt_logprobs), len(sequence.logprobs)) == ((2, 1) if echo else (0, 0))
