"""Answers to other problems, by which KTO measures how far a model has moved (objectives/kto.py).

own:         prompt A | answer a       prompt A | answer b       prompt B | answer c
mismatched:  prompt A | answer c       prompt A | answer c       prompt B | answer b
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from nemo_ext.samples.sft_samples import Made

T = TypeVar("T")


def with_other_answers(samples: Iterable[tuple[T, Made]]) -> Iterator[tuple[T, Made, Made]]:
    """Each with the last sample before it that has another prompt; those at the start, which have none, with the first
    one after them that has. Order is kept; the samples of the first prompt are held until another one comes.

    Raises:
        ValueError: all of them have one prompt.
    """
    held: list[tuple[T, Made]] = []
    before: Made | None = None
    last: Made | None = None
    for what, sample in samples:
        if last is not None and sample.prompt != last.prompt:
            before = last
            yield from ((earlier, own, sample) for earlier, own in held)
            held = []
        last = sample
        if before is None:
            held.append((what, sample))
        else:
            yield what, sample, before
    if held:
        raise ValueError(
            f"all of the {len(held)} samples have one prompt: KTO compares with answers to other ones, so that it needs two"
        )


def mismatched(own: Made, other: Made, seq_length: int) -> Made:
    """`own`'s prompt with `other`'s answer, cut where it would be longer than seq_length."""
    room = max(1, seq_length - len(own.prompt) // 4)
    start = len(other.prompt) // 4
    tokens, mask = other.tokens[4 * start : 4 * (start + room)], other.loss_mask[start : start + room]
    cut = start + room < len(other.loss_mask)
    return replace(own, tokens=own.prompt + tokens, loss_mask=bytes(len(own.prompt) // 4) + mask, truncated=cut)
