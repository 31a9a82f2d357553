import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.megatron.data.packing import assign_packs, best_fit_decreasing, count_packs, efficiency

problems = st.integers(1, 200).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(1, capacity), max_size=60), st.just(capacity))
)


@given(problems)
def test_every_sample_once_and_no_pack_too_full(problem: tuple[list[int], int]) -> None:
    lengths, capacity = problem
    packs = best_fit_decreasing(lengths, capacity)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(pack and sum(lengths[index] for index in pack) <= capacity for pack in packs)
    assert packs == best_fit_decreasing(lengths, capacity)


@given(problems)
def test_it_is_best_fit_decreasing(problem: tuple[list[int], int]) -> None:
    """Against the definition, written the slow way: as many packs, and packs of the same fill."""
    lengths, capacity = problem
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(capacity - length)
    packs = best_fit_decreasing(lengths, capacity)
    assert sorted(capacity - sum(lengths[i] for i in pack) for pack in packs) == sorted(rooms)


@given(problems)
def test_packs_are_the_sequential_algorithm_s(problem: tuple[list[int], int]) -> None:
    """Which samples meet, not only how full packs get: the hashes of data that exists depend on it. The tightest pack
    takes the next sample; of several, the one that came to its room last."""
    lengths, capacity = problem
    packs: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = next((r for r in range(lengths[index], capacity + 1) if by_room[r]), None)
        if room is None:
            packs.append([])
        pack = by_room[room].pop() if room is not None else len(packs) - 1
        packs[pack].append(index)
        by_room[(capacity if room is None else room) - lengths[index]].append(pack)
    assert best_fit_decreasing(lengths, capacity) == packs


@given(problems)
def test_an_array_of_packs_says_the_same(problem: tuple[list[int], int]) -> None:
    lengths, capacity = np.asarray(problem[0], np.int32), problem[1]
    packs = best_fit_decreasing(problem[0], capacity)
    assigned = assign_packs(lengths, capacity)
    assert assigned.dtype == np.int32
    assert [np.flatnonzero(assigned == pack).tolist() for pack in range(len(packs))] == [sorted(p) for p in packs]
    assert count_packs(lengths, capacity) == len(packs)


def test_long_packs() -> None:
    """Past 65,535 tokens the sort key is wider."""
    lengths = np.asarray([100_000, 40_000, 31_072, 60_000], np.int32)
    assert assign_packs(lengths, 131_072).tolist() == [0, 1, 1, 1]


def test_a_known_case() -> None:
    assert best_fit_decreasing([4, 8, 1, 4, 2, 1], 10) == [[1, 2, 5], [0, 3, 4]]


def test_equal_lengths_keep_their_order() -> None:
    assert best_fit_decreasing([5, 5, 5, 5], 10) == [[0, 1], [2, 3]]


def test_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 1 has 11 tokens, more than the pack length 10"):
        best_fit_decreasing([3, 11], 10)
    for function in (assign_packs, count_packs):
        with pytest.raises(ValueError, match="sample 1 has 11 tokens, more than the pack length 10"):
            function(np.asarray([3, 11, 11]), 10)


def test_a_full_step_packs_tightly() -> None:
    draw = random.Random(0)
    lengths = [min(4096, max(40, int(draw.lognormvariate(5.8, 0.6)))) for _ in range(512)]
    packs = best_fit_decreasing(lengths, 4096)
    assert efficiency(lengths, packs, 4096) > 0.95
    assert len(packs) - sum(lengths) / 4096 < 2


def test_efficiency() -> None:
    assert efficiency([5, 5], [[0, 1]], 10) == 1.0
    assert efficiency([5], [[0]], 10) == 0.5
    assert efficiency([], [], 10) == 0.0
