"""The vectorised sampler against a plain loop over sorted probabilities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.serving.embedded.sampling import choose, stream_key, uniforms


def _reference(logits: list[float], temperature: float, top_p: float, top_k: int, uniform: float) -> int:
    """The definition: keep the top_k best, of those the smallest set reaching top_p, walk in the order of the ids."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if temperature == 0:
        return order[0]
    best = max(logits)
    weights = {i: math.exp((logits[i] - best) / temperature) for i in order}
    order = order[: top_k or None]
    total, kept, mass = math.fsum(weights[i] for i in order), 0, 0.0
    while kept < len(order) and (kept == 0 or mass < top_p * total):
        mass += weights[order[kept]]
        kept += 1
    ids = sorted(order if top_p >= 1 else order[:kept])
    mass, walked = math.fsum(weights[i] for i in ids), 0.0
    for i in ids:
        walked += weights[i]
        if walked > uniform * mass:
            return i
    return ids[-1]


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.sampled_from([3, 64, 65, 300]),
    spread=st.sampled_from([0.1, 2.0, 10.0]),
    rows=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.3, 1.0, 2.5]),
            st.sampled_from([0.05, 0.5, 0.95, 0.999, 1.0]),
            st.sampled_from([0, 1, 5, 64, 100, 1000]),
            st.floats(0, 1, exclude_max=True, allow_subnormal=False),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_choose_equals_the_definition(
    seed: int, vocabulary: int, spread: float, rows: list[tuple[float, float, int, float]]
) -> None:
    logits = (torch.randn(len(rows), vocabulary, generator=torch.Generator().manual_seed(seed)) * spread).float()
    temperature, top_p, top_k, uniform = (np.array(column) for column in zip(*rows, strict=True))
    got = choose(logits, temperature, top_p, top_k, uniform).tolist()
    expected = [_reference(logits[i].tolist(), *row) for i, row in enumerate(rows)]
    for i, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        # On the edge between two tokens float64 sums in another order may fall on the other side.
        nudged = {_reference(logits[i].tolist(), *rows[i][:3], min(rows[i][3] + e, 1 - 1e-16)) for e in (-1e-9, 1e-9)}
        assert ours in {theirs, *nudged}


def test_nucleus_is_not_cut_at_a_number_of_candidates() -> None:
    """A flat distribution over 2,000 tokens with top_p 0.95 keeps 1,900 of them."""
    vocabulary, draws = 2000, 4000
    logits = torch.linspace(0, 1e-3, vocabulary, dtype=torch.float64).expand(draws, -1)
    ones, uniform = np.ones(draws), (np.arange(draws) + 0.5) / draws
    tokens = choose(logits, ones, 0.95 * ones, np.zeros(draws, dtype=np.int64), uniform)
    assert len(set(tokens.tolist())) == pytest.approx(1900, abs=3)
    assert min(tokens.tolist()) == pytest.approx(100, abs=3)


def test_greedy_ties_go_to_the_lowest_id_even_when_float64_sums_differ() -> None:
    logits = torch.zeros(3, 100, dtype=torch.float64)
    logits[:, [30, 70]] = 1.0
    logits[1, 70] += 1e-13
    logits[2, 30] += 1e-13
    zeros = np.zeros(3)
    tokens = choose(logits, zeros, zeros + 1, np.zeros(3, dtype=np.int64), zeros)
    assert tokens.tolist() == [30, 30, 30]


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(64, 500, generator=generator, dtype=torch.float64)
    draw = np.random.default_rng(1)
    top_p, top_k = draw.uniform(0.1, 1, 64), draw.integers(0, 200, 64)
    columns = (logits, draw.uniform(0, 2, 64), top_p, top_k, draw.uniform(0, 1, 64))
    together = choose(*columns)
    alone = np.concatenate([choose(*(column[i : i + 1] for column in columns)) for i in range(64)])
    assert together.tolist() == alone.tolist()


def test_uniform_numbers_are_uniform_and_reproducible() -> None:
    keys = np.array([stream_key(7)] * 20000 + [stream_key(8)] * 20000, dtype=np.uint64)
    counts = np.tile(np.arange(20000, dtype=np.uint64), 2)
    numbers = uniforms(keys, counts)
    assert (uniforms(keys, counts) == numbers).all()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert len(np.unique(numbers)) == len(numbers)
    histogram = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert abs(histogram - 2000).max() < 5 * 45
    assert abs(np.corrcoef(numbers[:20000], numbers[20000:])[0, 1]) < 0.03


def test_frequencies_follow_the_probabilities() -> None:
    draws = 20000
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    numbers = uniforms(np.full(draws, stream_key("x"), dtype=np.uint64), np.arange(draws, dtype=np.uint64))
    ones, top_k = np.ones(draws), np.zeros(draws, dtype=np.int64)
    tokens = torch.from_numpy(choose(probabilities.log().expand(draws, -1), ones, ones, top_k, numbers))
    counted = torch.bincount(tokens, minlength=4) / draws
    torch.testing.assert_close(counted.double(), probabilities, atol=0.015, rtol=0)
