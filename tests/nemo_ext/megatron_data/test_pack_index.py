import os
import threading
from pathlib import Path

import numpy as np
import pytest

from nemo_ext.megatron.data.pack_index import PackIndex, index_key, wait_for

LENGTHS = np.random.default_rng(0).integers(3, 21, 103).astype(np.int32)


def test_it_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    built = PackIndex.build(LENGTHS, 64, seed=1, epoch=2, shuffle=True)
    assert PackIndex.open(tmp_path) is None
    built.save(tmp_path)
    opened = PackIndex.open(tmp_path)
    assert opened is not None and len(opened) == len(built)
    assert opened.packs(0, len(opened)) == built.packs(0, len(built))
    assert opened.packs(2, 4) == built.packs(0, 5)[2:4]
    assert opened.order.dtype == np.int32 and opened.bounds.dtype == np.int64
    assert sorted(os.listdir(tmp_path)) == ["bounds.npy", "order.npy"]


def test_without_shuffling_it_is_the_packing(tmp_path: Path) -> None:
    plain = PackIndex.build(LENGTHS, 64, seed=1, epoch=2, shuffle=False)
    again = PackIndex.build(LENGTHS, 64, seed=9, epoch=0, shuffle=False)
    assert plain.packs(0, len(plain)) == again.packs(0, len(again))
    assert all(pack == sorted(pack) for pack in plain.packs(0, len(plain)))


def test_two_writers_do_no_harm(tmp_path: Path) -> None:
    """A restart while a node that was given up is still writing, say."""
    threads = [
        threading.Thread(target=lambda: PackIndex.build(LENGTHS, 64, 1, 0, True).save(tmp_path)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(os.listdir(tmp_path)) == ["bounds.npy", "order.npy"]
    opened, built = PackIndex.open(tmp_path), PackIndex.build(LENGTHS, 64, 1, 0, True)
    assert opened is not None and opened.packs(0, len(opened)) == built.packs(0, len(built))


def test_the_key_is_of_everything_but_the_epoch() -> None:
    key = index_key(LENGTHS, 64, 1, True)
    assert len(key) == 16 and key == index_key(LENGTHS.astype(np.int64), 64, 1, True)
    changed = LENGTHS.copy()
    changed[50] += 1
    others = [index_key(*args) for args in ((changed, 64, 1, True), (LENGTHS, 65, 1, True), (LENGTHS, 64, 2, True))]
    assert len({key, index_key(LENGTHS, 64, 1, False), *others}) == 5


def test_waiting_for_the_process_that_builds(tmp_path: Path) -> None:
    built = PackIndex.build(LENGTHS, 64, 1, 0, True)
    writer = threading.Timer(0.3, built.save, [tmp_path / "late"])
    writer.start()
    assert len(wait_for(tmp_path / "late", timeout_s=60)) == len(built)
    writer.join()
    with pytest.raises(ValueError, match=r"no packs in .*never after 0 s.*first process.*share"):
        wait_for(tmp_path / "never", timeout_s=0.1)


def test_order_without_bounds_is_not_there_yet(tmp_path: Path) -> None:
    PackIndex.build(LENGTHS, 64, 1, 0, True).save(tmp_path)
    np.save(tmp_path / "order.npy", np.arange(50, dtype=np.int32))
    with pytest.raises(ValueError, match=r"bounds\.npy ends at 103, order\.npy at 50: delete the folder"):
        PackIndex.open(tmp_path)
    (tmp_path / "bounds.npy").unlink()
    assert PackIndex.open(tmp_path) is None
