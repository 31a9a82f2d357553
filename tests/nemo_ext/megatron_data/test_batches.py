from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.megatron.data.batches import Batches, microbatch, rank_packs
from nemo_ext.megatron.data.pack_index import PackIndex
from nemo_ext.megatron.data.packing import count_packs
from nemo_ext.megatron.data.token_folder import PackedData, PackedDataWriter
from tests.nemo_ext.megatron_data.samples import write


@settings(max_examples=50)
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


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(0, 99), st.booleans(), st.integers(20, 64), st.integers(0, 3))
def test_global_packs_partition_an_epoch(
    data: PackedData, size: int, seed: int, shuffle: bool, length: int, epoch: int
) -> None:
    batches = Batches(data, size, length, seed, shuffle, packing="global")
    each = batches.packs_per_step
    steps = [batches.step(epoch * batches.steps_per_epoch + i) for i in range(batches.steps_per_epoch)]
    assert each and all(len(step) == each for step in steps)
    drawn = [index for step in steps for pack in step for index in pack]
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(103)), "no sample twice in an epoch"
    assert all(pack and sum(data.lengths[pack]) <= length for step in steps for pack in step)
    left_out = count_packs(data.lengths, length) - len(steps) * each
    assert 0 <= left_out < each and (left_out or len(drawn) == 103)
    assert batches.samples(0) == [index for pack in batches.step(0) for index in pack]
    assert batches.epoch(batches.steps_per_epoch * 2) == 2


def test_global_steps_need_only_their_number(data: PackedData, tmp_path: Path) -> None:
    one = Batches(data, 10, 64, seed=3, packing="global")
    walked = [one.step(step) for step in range(35)]
    assert walked[0] != walked[one.steps_per_epoch], "epochs differ"
    for index_dir in (None, tmp_path):
        for step in (34, 0, 17):
            assert Batches(data, 10, 64, 3, packing="global", index_dir=index_dir).step(step) == walked[step]
    assert Batches(data, 10, 64, seed=4, packing="global").step(0) != walked[0]


def test_global_steps_hold_global_batch_size_samples_on_average(data: PackedData) -> None:
    batches = Batches(data, 10, 64, seed=0, packing="global")
    samples = [len(batches.samples(step)) for step in range(batches.steps_per_epoch)]
    assert len(set(samples)) > 1 and abs(sum(samples) / len(samples) - 10) < 3
    assert Batches(data, 10, 64, 0, packing="global", packs_per_step=7).packs_per_step == 7
    assert Batches(data, 1, 64, 0, packing="global").packs_per_step == 1


def test_global_packs_are_tighter_than_a_step_s(data: PackedData) -> None:
    windowed, together = Batches(data, 20, 64, seed=0), Batches(data, 20, 64, seed=0, packing="global")
    fills = [
        sum(data.lengths[batches.samples(step)].sum() for step in range(batches.steps_per_epoch))
        / sum(len(batches.step(step)) for step in range(batches.steps_per_epoch))
        for batches in (windowed, together)
    ]
    assert fills[1] > fills[0]


def test_packs_are_built_once_and_mapped_by_all(data: PackedData, tmp_path: Path, monkeypatch) -> None:
    built = []
    original = PackIndex.build.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(PackIndex, "build", classmethod(lambda *args: built.append(args[4]) or original(*args)))
    first = Batches(data, 10, 64, 3, packing="global", index_dir=tmp_path)
    steps = first.steps_per_epoch
    packs = [first.step(step) for step in range(2 * steps)]
    assert built == [0, 1]
    for size, build in ((10, True), (10, False), (20, False)):
        again = Batches(data, size, 64, 3, packing="global", index_dir=tmp_path, build=build)
        drawn = [pack for step in range(again.steps_per_epoch) for pack in again.step(step)]
        assert drawn == [pack for step in packs[:steps] for pack in step][: len(drawn)]
        assert isinstance(again._index(0).order, np.memmap)
    assert built == [0, 1], "neither a resume nor another batch size packs again"
    folders = sorted(path.name for path in tmp_path.glob("*/*"))
    assert folders == ["epoch_0000", "epoch_0001"] and len(list(tmp_path.iterdir())) == 1
    Batches(data, 10, 65, 3, packing="global", index_dir=tmp_path).step(0)
    Batches(data, 10, 64, 4, packing="global", index_dir=tmp_path).step(0)
    assert len(list(tmp_path.iterdir())) == 3, "other packs have a folder of their own"


def test_impossible_batches_are_refused(data: PackedData) -> None:
    with pytest.raises(ValueError, match=r"packing='both': it may be 'windowed' or 'global'"):
        Batches(data, 10, 64, 0, packing="both")
    with pytest.raises(ValueError, match="packs_per_step=3: at least 1, and only with packing=global"):
        Batches(data, 10, 64, 0, packs_per_step=3)
    with pytest.raises(ValueError, match=r"makes \d+ packs, fewer than packs_per_step=200.*Lower packs_per_step"):
        Batches(data, 10, 64, 0, packing="global", packs_per_step=200)
    with pytest.raises(ValueError, match="103 samples, fewer than global_batch_size=104"):
        Batches(data, 104, 64, 0)
    with pytest.raises(ValueError, match=r"a sample of 20 tokens, more than pack_length=19"):
        Batches(data, 1, 19, 0)


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=2), max_size=20), st.integers(1, 8), st.integers(1, 4))
def test_every_rank_gets_as_many_packs(packs: list[list[int]], size: int, multiple: int) -> None:
    shares = [rank_packs(packs, rank, size, multiple) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1 and len(shares[0]) % multiple == 0
    given_out = [pack for share in shares for pack in share]
    assert sorted(pack for pack in given_out if pack) == sorted(packs), "all ranks together see each pack once"
    assert len(given_out) - len(packs) < size * multiple
    real = [sum(map(bool, share)) for share in shares]
    assert max(real) - min(real) <= 1
    assert all(share == sorted(share, key=lambda pack: not pack) for share in shares), "empty packs come last"


@settings(max_examples=30)
@given(st.integers(1, 8), st.sampled_from(["windowed", "global"]), st.integers(0, 99))
def test_ranks_get_about_as_many_tokens(data: PackedData, size: int, packing: str, seed: int) -> None:
    packs = Batches(data, 103, 32, seed, packing=packing, packs_per_step=None).step(0)
    tokens = [
        sum(int(data.lengths[index]) for pack in rank_packs(packs, rank, size, 2) for index in pack)
        for rank in range(size)
    ]
    assert max(tokens) - min(tokens) <= 2 * 32


def test_a_microbatch_by_hand(tmp_path: Path) -> None:
    data = write(tmp_path, [([11, 12, 13], [0, 1, 1]), ([21, 22], [0, 1])])
    batch = microbatch(data, [1, 0], 8)
    assert batch["tokens"].tolist() == [[21, 22, 11, 12, 13, 0, 0, 0]]
    assert batch["labels"].tolist() == [[22, 0, 12, 13, 0, 0, 0, 0]]
    assert batch["loss_mask"].tolist() == [[1, 0, 1, 1, 0, 0, 0, 0]] == batch["counts"].tolist()
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0, 1, 2]]
    assert batch["cu_seqlens"].tolist() == [0, 2, 5, 8] and batch["max_seqlen"] == 3
    assert batch["tokens"].dtype == batch["labels"].dtype == batch["position_ids"].dtype == torch.int64
    assert (
        batch["loss_mask"].dtype == torch.float32
        and batch["counts"].dtype == torch.int32
        and batch["cu_seqlens"].dtype == torch.int32
    )


def test_a_mean_over_samples_by_hand(tmp_path: Path) -> None:
    """The first token of a sample is never predicted, whatever its mask says."""
    data = write(tmp_path, [([11, 12, 13], [0, 1, 1]), ([21, 22], [1, 0]), ([31, 32, 33, 34], [1, 1, 0, 0])])
    batch = microbatch(data, [0, 1, 2], 10, "samples")
    assert batch["loss_mask"].tolist() == [[0.5, 0.5, 0, 0, 0, 1, 0, 0, 0, 0]]
    assert batch["counts"].tolist() == [[0, 1, 0, 0, 0, 1, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match="loss_mean='rows': it may be 'tokens' or 'samples'"):
        microbatch(data, [0], 10, "rows")


def test_a_full_and_an_empty_pack(tmp_path: Path) -> None:
    data = write(tmp_path, [([1, 2, 3], [1, 1, 1])])
    full, empty = microbatch(data, [0], 3), microbatch(data, [], 3)
    assert full["cu_seqlens"].tolist() == [0, 3] and full["loss_mask"].tolist() == [[1, 1, 0]]
    assert empty["cu_seqlens"].tolist() == [0, 3] and empty["loss_mask"].sum() == 0 and empty["max_seqlen"] == 3
    assert not empty["counts"].any() and not microbatch(data, [], 3, "samples")["counts"].any()


@settings(max_examples=50)
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


@settings(max_examples=50)
@given(st.integers(0, 40), st.sampled_from(["tokens", "samples"]), st.sampled_from([1, 2, 3, 4]))
def test_weights_and_counts_may_be_sliced(data: PackedData, step: int, loss_mean: str, slices: int) -> None:
    """Summed over context parallel slices and packs they are the step's, and a sample's weights make 1."""
    packs = Batches(data, 10, 48, 0).step(step)
    total = weight = 0.0
    for pack in packs:
        batch = microbatch(data, pack, 48, loss_mean)
        for part in range(slices):
            total += float(batch["counts"][:, part * 48 // slices : (part + 1) * 48 // slices].sum())
            weight += float(batch["loss_mask"][:, part * 48 // slices : (part + 1) * 48 // slices].sum())
        assert torch.equal(batch["loss_mask"] > 0, microbatch(data, pack, 48)["loss_mask"] > 0)
        assert not batch["counts"][batch["loss_mask"] == 0].any(), "what counts is trained"
    trained = [int(data.sample(index)[1][1:].sum()) for pack in packs for index in pack]
    assert total == (sum(trained) if loss_mean == "tokens" else sum(map(bool, trained)))
    assert weight == pytest.approx(total, abs=1e-5), "the weighted mean of equal losses is that loss"


def test_the_end_of_every_answer_is_trained(data: PackedData) -> None:
    """The last token of a sample, its EOS, is predicted at the position before it, in every place of a pack."""
    for pack in Batches(data, 103, 64, 0).step(0):
        batch = microbatch(data, pack, 64)
        for index, start in zip(pack, batch["cu_seqlens"].tolist(), strict=False):
            ids, _ = data.sample(index)
            at = start + len(ids) - 2
            assert batch["labels"][0, at] == int(ids[-1]) and batch["loss_mask"][0, at] == 1


@pytest.mark.parametrize("packing", ["windowed", "global"])
def test_topology_does_not_change_a_step(data: PackedData, packing: str) -> None:
    batches = Batches(data, 20, 48, 5, packing=packing)
    for step in range(batches.steps_per_epoch):
        for size, multiple in ((1, 1), (3, 2), (4, 4)):
            ranks = [rank_packs(batches.step(step), rank, size, multiple) for rank in range(size)]
            assert sorted(i for rank in ranks for pack in rank for i in pack) == sorted(batches.samples(step))


@given(seed=st.integers(0, 2**32), size=st.integers(1, 51), packing=st.sampled_from(["windowed", "global"]))
def test_pairs_share_a_pack_and_a_step(even: PackedData, seed: int, size: int, packing: str) -> None:
    batches = Batches(even, size, 64, seed, packing=packing, samples_per_unit=2)
    seen = []
    for step in range(batches.steps_per_epoch):
        packs = batches.step(step)
        for pack in packs:
            assert pack[1::2] == [sample + 1 for sample in pack[::2]] and not any(sample % 2 for sample in pack[::2])
            assert even.lengths[pack].sum() <= 64
        if packing == "windowed":
            assert sum(map(len, packs)) == 2 * size == len(batches.samples(step))
        seen += [sample for pack in packs for sample in pack]
    assert len(set(seen)) == len(seen)
    assert sorted(sample for pack in batches.epoch_packs() for sample in pack) == list(range(102))


def test_pairs_that_cannot_be_batched_are_named(even: PackedData) -> None:
    with pytest.raises(ValueError, match="51 runs of 2 samples, fewer than global_batch_size=52"):
        Batches(even, 52, 64, 0, samples_per_unit=2)
    with pytest.raises(ValueError, match=r"has a run of 2 samples of \d+ tokens, more than pack_length=20"):
        Batches(even, 1, 20, 0, samples_per_unit=2)


def test_columns_come_with_their_samples(tmp_path: Path) -> None:
    with PackedDataWriter(tmp_path, {}, ("score", "attributes")) as writer:
        for number in range(4):
            writer.add([1, 2], [0, 1], {"score": number / 2, "attributes": [number, -number]})
    batch = microbatch(PackedData.open(tmp_path), [3, 1], 6, columns=("score", "attributes"))
    assert batch["num_samples"] == 2 and batch["columns"].keys() == {"score", "attributes"}
    assert batch["columns"]["score"].tolist() == [1.5, 0.5]
    assert batch["columns"]["attributes"].tolist() == [[3, -3], [1, -1]]
    assert microbatch(PackedData.open(tmp_path), [], 6, columns=("score",))["columns"]["score"].shape == (0,)
