"""Continuous batching: every step admits waiting prompts into free slots, then decodes one token of every slot.

The steps run inside the event loop: torch would fight a second thread for the interpreter, and a loop that owns its
state needs no locks.
"""

import asyncio
import logging
import random
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from nemo_ext.serving.embedded.forward.model import Llama
from nemo_ext.serving.embedded.sampling import stream_key
from nemo_ext.serving.embedded.sequence import Sequence, TokenLogprob
from nemo_ext.serving.embedded.slots import Slots

log = logging.getLogger(__name__)

PREFILL_TOKENS = 8192  # prompt tokens of one admission, so that no step keeps the event loop for long


class EngineError(RuntimeError):
    """A step failed; the message is the exception's. The engine goes on with other work."""


@dataclass
class Counters:
    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    failed_steps: int = 0


class Engine:
    """Runs sequences given to `submit` and resolves their `done`.

    Args:
        max_prefill: distinct prompts admitted in one step.
    """

    def __init__(
        self, model: Llama, tokenizer: Tokenizer, eos_ids: list[int], num_slots: int, max_prefill: int
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_prefill = max_prefill
        self.slots = Slots(num_slots, model.context_length)
        self.waiting: deque[Sequence] = deque()
        self.counters = Counters()
        self._is_eos = np.zeros(model.config.vocab_size, dtype=bool)
        self._is_eos[eos_ids] = True
        self._work = asyncio.Event()

    def submit(self, sequences: list[Sequence]) -> None:
        self.waiting.extend(sequences)
        self._work.set()

    async def run(self) -> None:
        """Step for ever; cancel to stop."""
        while True:
            if not (self.slots.sequences or self.waiting):
                self._work.clear()
                await self._work.wait()
            self.step()
            await asyncio.sleep(0)

    @torch.inference_mode()
    def step(self) -> None:
        self.counters.steps += 1
        self._drop_cancelled()
        self._admit()
        if self.slots.sequences:
            self._decode()

    def _drop_cancelled(self) -> None:
        for slot in reversed(range(len(self.slots))):
            if self.slots.sequences[slot].done.done():
                self._free(slot)

    def _free(self, slot: int) -> None:
        self.model.pages.release(slot)
        moved = self.slots.remove(slot)
        if moved != slot:
            self.model.pages.rename(moved, slot)

    def _next_group(self) -> dict[tuple[int, ...], list[Sequence]]:
        """Waiting sequences to admit now, in arrival order, by prompt: equal prompts are computed once."""
        group: dict[tuple[int, ...], list[Sequence]] = {}
        free, tokens = self.slots.size - len(self.slots), 0
        while self.waiting and free > 0:
            sequence = self.waiting[0]
            if sequence.done.done():
                self.waiting.popleft()
                continue
            if sequence.prompt not in group:
                tokens += len(sequence.prompt)
                if group and (len(group) == self.max_prefill or tokens > PREFILL_TOKENS):
                    break
                group[sequence.prompt] = []
            group[sequence.prompt].append(self.waiting.popleft())
            free -= 1
        return group

    def _admit(self) -> None:
        group = self._next_group()
        if not group:
            return
        start = len(self.slots)
        try:
            logits = self._prefill(group)
            self._advance(logits, start)
        except Exception as error:
            log.exception("prefill of %d prompts failed", len(group))
            self._fail([sequence for members in group.values() for sequence in members], start, error)

    def _prefill(self, group: dict[tuple[int, ...], list[Sequence]]) -> torch.Tensor:
        """Logits [sequences, vocab] of the new slots, each prompt computed once and copied to its other slots."""
        prompts = list(group)
        firsts, copies, members = [], [], []
        for number, prompt in enumerate(prompts):
            slots = [self.slots.append(sequence) for sequence in group[prompt]]
            firsts.append(slots[0])
            copies += [(slots[0], slot, len(prompt)) for slot in slots[1:]]
            members += [number] * len(slots)
        scored = [number for number, prompt in enumerate(prompts) if any(s.scores_prompt for s in group[prompt])]
        ids = [np.array(prompt) for prompt in prompts]
        if scored:
            logits, every = self.model.prefill_scored(ids, np.array(firsts), scored)
            for number, each in every.items():
                _score_prompt(group[prompts[number]], each)
        else:
            logits = self.model.prefill(ids, np.array(firsts))
        for source, target, length in copies:
            self.model.pages.copy(source, target, length)
        self.counters.prompt_tokens += sum(len(prompt) for prompt in prompts)
        return logits[torch.tensor(members)]

    def _decode(self) -> None:
        count = len(self.slots)
        try:
            logits = self.model.decode(self.slots.column("token"), self.slots.column("position"))
            self.slots.table["position"][:count] += 1
            self._advance(logits, 0)
        except Exception as error:
            log.exception("decoding %d sequences failed", count)
            self._fail(list(self.slots.sequences), 0, error)

    def _fail(self, sequences: list[Sequence], start: int, error: Exception) -> None:
        """Give the error to every sequence of the failed batch and empty its slots, which are the last ones."""
        self.counters.failed_steps += 1
        for slot in range(start, len(self.slots)):
            self.model.pages.release(slot)
        del self.slots.sequences[start:]
        for sequence in sequences:
            if not sequence.done.done():
                sequence.done.set_exception(EngineError(f"{type(error).__name__}: {error}"))

    def _advance(self, logits: torch.Tensor, start: int) -> None:
        """Sample one token for slots from `start` on and finish those that end with it."""
        tokens = self.slots.choose(logits, start)
        self.counters.generated_tokens += len(tokens)
        rows = self.slots.table[start : start + len(tokens)]
        ended = (self._is_eos[tokens] & (rows["ignore_eos"] == 0)) | self._at_stop_token(tokens, start)
        full = rows["produced"] >= rows["limit"]
        stopped = self._watch(tokens, ended, logits, start)
        for row in reversed(np.flatnonzero(ended | full | stopped).tolist()):
            self._finish(start + row, "stop" if ended[row] or stopped[row] else "length", drop_last=bool(ended[row]))

    def _at_stop_token(self, tokens: NDArray[np.int64], start: int) -> NDArray[np.bool_]:
        """Which rows met one of their own stop_token_ids; it is their stop_reason, unless it ends the model's sequences."""
        met = np.zeros(len(tokens), dtype=bool)
        for row, sequence in enumerate(self.slots.sequences[start : start + len(tokens)]):
            if sequence.parameters.stop_token_ids and int(tokens[row]) in sequence.parameters.stop_token_ids:
                met[row] = True
                if not self._is_eos[tokens[row]] or sequence.parameters.ignore_eos:
                    sequence.stop_reason = int(tokens[row])
        return met

    def _watch(
        self, tokens: NDArray[np.int64], ended: NDArray[np.bool_], logits: torch.Tensor, start: int
    ) -> NDArray[np.bool_]:
        """Feed text streams and log-probabilities; returns which rows met a stop string."""
        stopped = np.zeros(len(tokens), dtype=bool)
        for row, sequence in enumerate(self.slots.sequences[start : start + len(tokens)]):
            asked = sequence.parameters
            # lm-evaluation-harness takes a scored prompt's last entry for the one token it had generated, whatever it is
            if not sequence.watched or asked.max_tokens == 0 or (ended[row] and not sequence.scores_prompt):
                continue
            token = int(tokens[row])
            if asked.num_logprobs is not None:
                sequence.logprobs.append(token_logprob(logits[row], token, asked.num_logprobs))
            if sequence.text_stream is not None and not ended[row]:
                sequence.text_stream.push(token)
                stopped[row] = sequence.text_stream.stopped
                if not stopped[row]:
                    sequence.send(final=False)
        return stopped

    def _finish(self, slot: int, reason: str, *, drop_last: bool) -> None:
        sequence = self.slots.sequences[slot]
        sequence.num_generated = int(self.slots.table[slot]["produced"])
        if sequence.parameters.max_tokens == 0:  # what the step sampled, nobody asked for
            sequence.num_generated, reason, drop_last = 0, "length", False
        stream = sequence.text_stream
        if stream is None:
            tokens = self.slots.generated[slot, : sequence.num_generated - drop_last].tolist()
            sequence.text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        else:
            stream.finish()
            sequence.text = stream.text
            sequence.stop_reason = stream.matched if stream.stopped else sequence.stop_reason
            reason = "stop" if stream.stopped else reason
        sequence.finish_reason = reason
        sequence.send(final=True)
        if not sequence.done.done():
            sequence.done.set_result(None)
        self._free(slot)


def token_logprob(logits: torch.Tensor, token: int, num_top: int) -> TokenLogprob:
    """Log-probabilities under the model's own distribution, before temperature, as in vLLM."""
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(num_top)
    return TokenLogprob(token, float(logprobs[token]), list(zip(ids.tolist(), values.tolist(), strict=True)))


def _score_prompt(sequences: list[Sequence], logits: torch.Tensor) -> None:
    """`logits` [length, vocab] at every position of their prompt."""
    for sequence in sequences:
        if sequence.parameters.num_logprobs is not None and sequence.scores_prompt:
            num_top = sequence.parameters.num_logprobs
            pairs = zip(logits, sequence.prompt[1:], strict=False)  # the last position is followed by no token of it
            sequence.prompt_logprobs = [token_logprob(row, token, num_top) for row, token in pairs]


def choice_key(seed: int | None, index: int) -> int:
    """The key of the random numbers that choice `index` (0 .. n-1) of a request draws.

    With a seed s, choice i is exactly the completion that a request of its own with seed s + i and n = 1 returns, as in
    vLLM; without one every choice draws fresh numbers. Greedy choices draw none, so that all n of them are equal.
    """
    return stream_key(seed + index) if seed is not None else random.SystemRandom().getrandbits(64)
