"""Data folders for these tests."""

from pathlib import Path

import numpy as np

from nemo_ext.megatron.data.token_folder import PackedData, PackedDataWriter

Samples = list[tuple[list[int], list[int]]]


def write(folder: Path, samples: Samples) -> PackedData:
    with PackedDataWriter(folder, {"model": "tiny"}) as writer:
        for tokens, mask in samples:
            writer.add(tokens, mask)
    return PackedData.open(folder)


def made(count: int, seed: int = 0) -> Samples:
    """Samples of 3 to 20 tokens with a prompt that is not trained; token ids need all of uint32."""
    draw = np.random.default_rng(seed)
    samples = []
    for length in draw.integers(3, 21, count):
        prompt = int(draw.integers(1, length))
        samples.append((draw.integers(0, 2**32 - 1, length).tolist(), [0] * prompt + [1] * (int(length) - prompt)))
    return samples
