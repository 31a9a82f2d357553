"""Request bodies as servers get them, with the class that SGLang, vLLM and TensorRT-LLM read each with."""

import json
from typing import Any

from nemo_ext.serving.address import Dialect
from nemo_ext.serving.client.requests import Request, Sampling

SAMPLING = Sampling(0.8, 0.95, 50, 24, ("\n", "="), 7, (128009,))
CHAT = [{"role": "user", "content": "1 + 1?"}]
REQUESTS = {
    "text": ("CompletionRequest", Request("k", "1 + 1", SAMPLING, more_keys=("l",))),
    "chat": ("ChatCompletionRequest", Request("k", CHAT, SAMPLING, more_keys=("l",))),
    "likelihood": ("CompletionRequest", Request("k", "1 + 1", SAMPLING, returns="logprobs")),
}


def bodies() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (class of the request, body)."""
    return {name: (kind, json.loads(request.body("m", Dialect()))) for name, (kind, request) in REQUESTS.items()}
