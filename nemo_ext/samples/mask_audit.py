"""Audit the loss mask: the answer is trained and nothing else, all of it but tool outputs that are masked. Checked for
every sample before it is written, and shown for some as they were written.

A mask that is off by one token trains without complaint and yields a model that never stops, or repeats its prompt.
"""

from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import numpy as np

from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.models.chat_tokenizer import ChatTokenizer, Sample

OPEN, CLOSE = "\u27e6", "\u27e7"  # white square brackets: not in the data, unlike what ASCII has to offer
SHOWN = 12  # tokens either side of a border in an error


def check_sample(
    sample: Sample,
    num_prompt_tokens: int,
    tokenizer: ChatTokenizer,
    truncated: bool = False,
    masked: Collection[int] = (),
) -> None:
    """Only the answer is trained, all of it but the tokens `masked` (indices in it), and that includes an end token as its
    last, unless it was `truncated`.

    Raises:
        ValueError: saying which of these does not hold, with the tokens there and how to go on.
    """
    tokens, mask = sample.tokens, sample.loss_mask
    border = num_prompt_tokens
    if 1 not in mask[max(border, 1) :]:
        raise ValueError(f"no token is trained{_around(tokenizer, sample, border)}. Has the row an answer?")
    if not truncated and (tokens[-1] not in tokenizer.end_ids or not mask[-1]):
        raise ValueError(
            f"the answer's end is not trained{_around(tokenizer, sample, len(tokens))}. {_ends(tokenizer)}"
        )
    if 1 in mask[:border]:
        raise ValueError(f"the prompt is trained{_around(tokenizer, sample, border)}. This is a bug: please report it")
    untrained = {index for index, trained in enumerate(mask[border:]) if not trained}
    if untrained - set(masked):
        raise ValueError(
            f"part of the answer is not trained{_around(tokenizer, sample, border)}. This is a bug: please report it"
        )
    if set(masked) - untrained:
        raise ValueError(
            f"a tool output is trained{_around(tokenizer, sample, border)}. This is a bug: please report it"
        )


def _around(tokenizer: ChatTokenizer, sample: Sample, at: int) -> str:
    pieces = (slice(max(0, at - SHOWN), at), slice(at, at + SHOWN))
    before, after = (_marked(tokenizer, sample.tokens[piece], sample.loss_mask[piece]) for piece in pieces)
    where = "at the end" if at == len(sample.tokens) else "where the answer begins"
    return f"; {where} ({OPEN}trained{CLOSE}): {before!r} | {after!r}"


def _ends(tokenizer: ChatTokenizer) -> str:
    names = [tokenizer.tokenizer.convert_ids_to_tokens(index) for index in sorted(tokenizer.end_ids)]
    template = (
        f"closes an answer with {tokenizer.turn_end!r}" if tokenizer.turn_end else "writes nothing after an answer"
    )
    return (
        f"It must be one of {names}; the chat template {template}. Set model.chat_template to a file of "
        "nemo_ext/models/chat_templates whose end of turn is a single token of this tokenizer."
    )


def audit(folder: Path, tokenizer: ChatTokenizer, count: int, samples_per_unit: int = 1) -> str:
    """`count` units of samples, evenly spaced, of a data folder as they lie on disk, the trained tokens in white brackets.

    Raises:
        ValueError: not a finished data folder.
    """
    data = PackedData.open(folder)
    units = len(data) // samples_per_unit
    chosen = np.unique(np.linspace(0, units - 1, min(count, units)).astype(int)).tolist()
    places = [unit * samples_per_unit + place for unit in chosen for place in range(samples_per_unit)]
    return "\n\n".join(_shown(data, index, tokenizer) for index in places)


def _shown(data: PackedData, index: int, tokenizer: ChatTokenizer) -> str:
    tokens, mask = (array.tolist() for array in data.sample(index))
    text = _marked(tokenizer, tokens, mask)
    head = f"{data.folder.name} sample {index} of {len(data)}: {sum(mask)} of {len(tokens)} tokens trained"
    return f"--- {head}\n{text}"


def _marked(tokenizer: ChatTokenizer, tokens: list[int], mask: list[int]) -> str:
    """The text with each run of trained tokens in white brackets. A run is decoded as a whole: one character may take
    several tokens."""
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(tokens)] if tokens else []
    runs = []
    for start, end in pairwise(edges):
        text = str(tokenizer.tokenizer.decode(tokens[start:end], clean_up_tokenization_spaces=False))
        runs.append(f"{OPEN}{text}{CLOSE}" if mask[start] else text)
    return "".join(runs)
