"""OpenAI's response shapes for /v1/completions and /v1/chat/completions, whole and streamed."""

import time
import uuid
from typing import Any

from tokenizers import Tokenizer

from nemo_ext.serving.embedded.requests import GenerationRequest
from nemo_ext.serving.embedded.sequence import Delta, Sequence, TokenLogprob
from nemo_ext.serving.embedded.text import token_bytes

Json = dict[str, Any]


class Replies:
    """The replies to one request."""

    def __init__(self, request: GenerationRequest, model: str, tokenizer: Tokenizer) -> None:
        self._request = request
        self._tokenizer = tokenizer
        prefix = "chatcmpl-" if request.chat else "cmpl-"
        self._head: Json = {"id": prefix + uuid.uuid4().hex, "created": int(time.time()), "model": model}
        self._offsets: dict[int, int] = {}

    def whole(self, sequences: list[Sequence]) -> Json:
        choices = [self._choice(sequence) for sequence in sequences]
        kind = "chat.completion" if self._request.chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": self._usage(sequences)}

    def first_chunks(self, sequences: list[Sequence]) -> list[Json]:
        """Chat streams open each choice with the assistant's role."""
        if not self._request.chat:
            return []
        delta = {"role": "assistant", "content": ""}
        return [self._chunk([{"index": s.index, "delta": delta, "finish_reason": None}]) for s in sequences]

    def chunk(self, delta: Delta) -> Json:
        choice: Json = {
            "index": delta.index,
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }
        if self._request.chat:
            choice["delta"] = {"content": delta.text}
        else:
            choice["text"] = delta.text
        choice["logprobs"] = self._logprobs(delta.logprobs, delta.index)
        return self._chunk([choice])

    def usage_chunk(self, sequences: list[Sequence]) -> Json:
        return {**self._chunk([]), "usage": self._usage(sequences)}

    def _chunk(self, choices: list[Json]) -> Json:
        kind = "chat.completion.chunk" if self._request.chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices}

    def _usage(self, sequences: list[Sequence]) -> Json:
        prompt = sum(len(tokens) for tokens in self._request.prompts)
        completion = sum(sequence.num_generated for sequence in sequences)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def _choice(self, sequence: Sequence) -> Json:
        choice: Json = {
            "index": sequence.index,
            "finish_reason": sequence.finish_reason,
            "stop_reason": sequence.stop_reason,
        }
        if self._request.chat:
            choice["message"] = {"role": "assistant", "content": sequence.text}
        else:
            choice["text"] = self._echoed(sequence) + sequence.text
        choice["logprobs"] = self._logprobs(sequence.logprobs, sequence.index)
        if sequence.scores_prompt:
            choice["logprobs"] = self._scored(sequence)
        return choice

    def _echoed(self, sequence: Sequence) -> str:
        texts = self._request.prompt_texts
        return texts[sequence.index // self._request.num_choices] if texts else ""

    def _scored(self, sequence: Sequence) -> Json:
        """Log-probabilities of the prompt's tokens and the generated ones; null for the first of all, as in vLLM."""
        first = self._token(sequence.prompt[0])
        self._offsets[sequence.index] = len(first)
        rest = self._logprobs([*sequence.prompt_logprobs, *sequence.logprobs], sequence.index)
        assert rest is not None, "a scored prompt has log-probabilities"
        before: Json = {"tokens": first, "token_logprobs": None, "top_logprobs": None, "text_offset": 0}
        return {key: [before[key], *values] for key, values in rest.items()}

    def _logprobs(self, entries: list[TokenLogprob], index: int) -> Json | None:
        """The end-of-sequence token, which is not in the text, is not listed either, but for a scored prompt."""
        if self._request.parameters.num_logprobs is None:
            return None
        if self._request.chat:
            return {"content": [self._chat_entry(entry) for entry in entries]}
        tokens = [self._token(entry.token) for entry in entries]
        offsets, at = [], self._offsets.get(index, 0)
        for token in tokens:
            offsets.append(at)
            at += len(token)
        self._offsets[index] = at
        return {
            "tokens": tokens,
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": [self._top(entry) for entry in entries],
            "text_offset": offsets,
        }

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        """The best tokens and the chosen one."""
        return {self._token(token): value for token, value in (*entry.top, (entry.token, entry.logprob))}

    def _chat_entry(self, entry: TokenLogprob) -> Json:
        top = [self._described(token, logprob) for token, logprob in entry.top]
        return {**self._described(entry.token, entry.logprob), "top_logprobs": top}

    def _described(self, token: int, logprob: float) -> Json:
        return {
            "token": self._token(token),
            "logprob": logprob,
            "bytes": token_bytes(self._tokenizer, token),
        }

    def _token(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special_tokens=False)
