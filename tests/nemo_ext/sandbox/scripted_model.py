"""A model that says what a script says, behind a server that treats stop strings as real ones do."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from nemo_ext.sandbox.config import ToolLoopConfig
from nemo_ext.sandbox.tool_loop import Send, ToolLoop
from nemo_ext.serving.client.requests import Completion, Request, Sampling
from tests.nemo_ext.sandbox.conftest import Service

PROMPT = "Problem: how much?\n"
SAMPLING = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=1000, stop=("\n\n\nProblem:",), seed=None)


def request(prompt: str = PROMPT, **sampling: object) -> Request:
    return Request("key", prompt, replace(SAMPLING, **sampling))  # type: ignore[arg-type]


def trace(sandbox: Service, model: Send, asked: Request | None = None, **config: Any) -> Completion:
    async def run() -> Completion:
        async with ToolLoop([sandbox.url], ToolLoopConfig(**config), sandbox.token) as loop:
            return await loop(asked or request(), model)

    return asyncio.run(run())


@dataclass
class ScriptedModel:
    """Each entry of `script` is what the model would write if it were not stopped. A token is a character.

    `says_reason`: report the stop string, as vLLM and TensorRT-LLM do. `keeps_stop`: leave it in the text.
    """

    script: list[str]
    says_reason: bool = True
    keeps_stop: bool = False
    requests: list[Request] = field(default_factory=list)

    async def __call__(self, request: Request) -> Completion:
        self.requests.append(request)
        text = self.script[len(self.requests) - 1]
        assert isinstance(request.prompt, str)
        whole, text = text, text[: request.sampling.max_tokens]
        found = [(text.index(stop), stop) for stop in request.sampling.stop if stop in text]
        finish, reason, written = "length" if len(whole) > len(text) else "stop", None, len(text)
        if found:
            at, reason = min(found)
            finish, written = "stop", at + len(reason)
            text = text[: written if self.keeps_stop else at]
        return Completion(
            request.key, text, finish, len(request.prompt), written, 0.01, None, 1,
            stop_reason=reason if self.says_reason else None,
        )  # fmt: skip
