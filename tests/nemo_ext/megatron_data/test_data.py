import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.megatron.data import Batches, PackedData, PackedDataWriter, microbatch, rank_packs

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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PackedData:
    return write(tmp_path_factory.mktemp("data"), made(103))


def test_samples_come_back(data: PackedData) -> None:
    expected = made(103)
    assert len(data) == 103
    for index in (0, 50, 102):
        tokens, mask = data.sample(index)
        assert (tokens.tolist(), mask.tolist()) == expected[index]
    assert data.num_tokens == data.facts["num_tokens"] == sum(len(tokens) for tokens, _ in expected)
    assert data.facts["num_trained_tokens"] == sum(sum(mask) for _, mask in expected)
    assert data.facts["model"] == "tiny" and data.facts["num_samples"] == 103


def test_no_samples(tmp_path: Path) -> None:
    assert len(write(tmp_path, [])) == 0


def test_a_failed_writer_leaves_no_readable_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), PackedDataWriter(tmp_path, {}) as writer:  # noqa: PT012
        writer.add([1], [1])
        raise KeyError
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="not a finished prepare_sft output"):
        PackedData.open(tmp_path)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 103), st.integers(0, 99), st.booleans(), st.integers(0, 3))
def test_an_epoch_is_a_permutation(data: PackedData, size: int, seed: int, shuffle: bool, epoch: int) -> None:
    batches = Batches(data, size, 64, seed, shuffle)
    each = batches.steps_per_epoch
    assert each == 103 // size
    steps = [batches.samples(epoch * each + position) for position in range(each)]
    assert all(len(step) == size for step in steps)
    drawn = [index for step in steps for index in step]
    assert len(set(drawn)) == len(drawn) == each * size
    if not shuffle:
        assert drawn == list(range(each * size))


def test_epochs_and_seeds_differ(data: PackedData) -> None:
    batches = Batches(data, 50, 64, seed=1)
    first, second = batches.samples(0) + batches.samples(1), batches.samples(2) + batches.samples(3)
    assert first != second and first != sorted(first)
    assert Batches(data, 50, 64, seed=2).samples(0) != batches.samples(0)


def test_a_step_needs_only_its_number(data: PackedData) -> None:
    """What a resumed run draws is what the uninterrupted one drew."""
    one = Batches(data, 10, 64, seed=3)
    walked = [one.step(step) for step in range(35)]
    for step in (34, 0, 17):
        assert Batches(data, 10, 64, seed=3).step(step) == walked[step]


def test_packs_hold_the_step_s_samples(data: PackedData) -> None:
    batches = Batches(data, 20, 32, seed=0)
    packs = batches.step(3)
    assert sorted(index for pack in packs for index in pack) == sorted(batches.samples(3))
    assert all(sum(int(data.lengths[index]) for index in pack) <= 32 for pack in packs)
    assert sorted(index for pack in batches.epoch_packs() for index in pack) == list(range(103))


def test_impossible_batches_are_refused(data: PackedData) -> None:
    with pytest.raises(ValueError, match="103 samples, fewer than global_batch_size=104"):
        Batches(data, 104, 64, 0)
    with pytest.raises(ValueError, match=r"a sample of 20 tokens, more than pack_length=19"):
        Batches(data, 1, 19, 0)


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=2), max_size=20), st.integers(1, 8))
def test_every_rank_gets_as_many_packs(packs: list[list[int]], size: int) -> None:
    shares = [rank_packs(packs, rank, size) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    given_out = [pack for share in shares for pack in share]
    assert sorted(pack for pack in given_out if pack) == sorted(packs)
    assert len(given_out) - len(packs) < size


def test_a_microbatch_by_hand(tmp_path: Path) -> None:
    data = write(tmp_path, [([11, 12, 13], [0, 1, 1]), ([21, 22], [0, 1])])
    batch = microbatch(data, [1, 0], 8)
    assert batch["tokens"].tolist() == [[21, 22, 11, 12, 13, 0, 0, 0]]
    assert batch["labels"].tolist() == [[22, 0, 12, 13, 0, 0, 0, 0]]
    assert batch["loss_mask"].tolist() == [[1, 0, 1, 1, 0, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0, 1, 2]]
    assert batch["cu_seqlens"].tolist() == [0, 2, 5, 8] and batch["max_seqlen"] == 3
    assert batch["tokens"].dtype == batch["labels"].dtype == batch["position_ids"].dtype == torch.int64
    assert batch["loss_mask"].dtype == torch.float32 and batch["cu_seqlens"].dtype == torch.int32


def test_a_full_and_an_empty_pack(tmp_path: Path) -> None:
    data = write(tmp_path, [([1, 2, 3], [1, 1, 1])])
    full, empty = microbatch(data, [0], 3), microbatch(data, [], 3)
    assert full["cu_seqlens"].tolist() == [0, 3] and full["loss_mask"].tolist() == [[1, 1, 0]]
    assert empty["cu_seqlens"].tolist() == [0, 3] and empty["loss_mask"].sum() == 0 and empty["max_seqlen"] == 3


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 40), st.integers(0, 99))
def test_a_microbatch_trains_each_trained_token_once_from_the_token_before(
    data: PackedData, step: int, seed: int
) -> None:
    for pack in Batches(data, 10, 48, seed).step(step):
        batch = microbatch(data, pack, 48)
        labels, mask, tokens = (batch[key][0] for key in ("labels", "loss_mask", "tokens"))
        expected = [int(t) for i in pack for t, m in list(zip(*data.sample(i), strict=True))[1:] if m]
        assert labels[mask.bool()].tolist() == expected
        places = mask.nonzero()[:, 0]
        assert torch.equal(tokens[places + 1], labels[places]), "a label is the next token"
        starts = batch["cu_seqlens"].tolist()
        assert starts[0] == 0 and starts[-1] == 48 and starts == sorted(set(starts))
        assert [int(batch["position_ids"][0, start]) for start in starts[:-1]] == [0] * (len(starts) - 1)
        assert not mask[[start - 1 for start in starts[1:]]].any(), "no sample's last token predicts the next sample"
