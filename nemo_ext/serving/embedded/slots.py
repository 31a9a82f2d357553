"""The engine's state of each running sequence, one array row per slot, so that a step needs no loop over them."""

import numpy as np
import torch
from numpy.typing import NDArray

from nemo_ext.serving.embedded import sampling
from nemo_ext.serving.embedded.sequence import Sequence

FIELDS = [
    ("token", np.int64),  # sampled last, not in the cache yet
    ("position", np.int64),  # where it will go
    ("produced", np.int64),
    ("limit", np.int64),
    ("top_k", np.int64),
    ("ignore_eos", np.int64),
    ("key", np.uint64),
    ("temperature", np.float64),
    ("top_p", np.float64),
]


class Slots:
    """Slots 0 .. count-1 are running; `sequences[i]` is slot i's."""

    def __init__(self, num_slots: int, context_length: int) -> None:
        self.size = num_slots
        self.context_length = context_length
        self.sequences: list[Sequence] = []
        self.table = np.zeros(num_slots, dtype=FIELDS)
        self.generated = np.zeros((num_slots, context_length), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.sequences)

    def append(self, sequence: Sequence) -> int:
        slot = len(self.sequences)
        assert slot < self.size, "the engine admits no more than it has slots"
        parameters, prompt = sequence.parameters, len(sequence.prompt)
        row = self.table[slot]
        row["position"], row["produced"], row["key"] = prompt, 0, sequence.key
        row["limit"] = min(parameters.max_tokens, self.context_length - prompt)
        row["temperature"], row["top_p"], row["top_k"] = parameters.temperature, parameters.top_p, parameters.top_k
        row["ignore_eos"] = parameters.ignore_eos
        self.sequences.append(sequence)
        return slot

    def remove(self, slot: int) -> int:
        """Free `slot` by moving the last one into it; returns the slot that moved (itself if it was the last)."""
        last = len(self.sequences) - 1
        tail = self.sequences.pop()
        if slot != last:
            self.sequences[slot] = tail
            self.table[slot] = self.table[last]
            produced = self.table[last]["produced"]
            self.generated[slot, :produced] = self.generated[last, :produced]
        return last

    def column(self, name: str) -> NDArray[np.int64]:
        """The column's values of the running slots."""
        return np.ascontiguousarray(self.table[name][: len(self)])

    def choose(self, logits: torch.Tensor, start: int) -> NDArray[np.int64]:
        """Sample for slots start, start+1, ... (one row of logits each) and record the tokens."""
        stop = start + len(logits)
        rows = self.table[start:stop]
        uniform = sampling.uniforms(rows["key"], rows["produced"].astype(np.uint64))
        tokens = sampling.choose(logits, rows["temperature"], rows["top_p"], rows["top_k"], uniform)
        self.generated[np.arange(start, stop), rows["produced"]] = tokens
        rows["token"] = tokens
        rows["produced"] += 1
        return tokens
