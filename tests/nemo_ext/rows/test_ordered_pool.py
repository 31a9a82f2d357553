import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from nemo_ext.rows.engines.processes import available_cores, ordered_map
from tests.conftest import ROOT


def doubler() -> Callable[[int], int]:
    def double(number: int) -> int:
        time.sleep(0.02 * (number % 3))
        if number == 13:
            raise ValueError("13 is refused")
        if number == 17:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number

    return double


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it is just ending, maybe another test's
            found += [child] if any("spawn_main" in word for word in child.cmdline()) else []
    return found


def test_results_come_in_order_and_reading_stays_close() -> None:
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        for number in range(1, 13):
            read = number
            yield number

    for done, (number, doubled) in enumerate(ordered_map(doubler, numbers(), 2), start=1):
        assert (number, doubled) == (done, 2 * done)
        assert read - done < 4, "two batches per worker"
    assert done == 12 and not workers()
    assert list(ordered_map(doubler, iter([]), 2)) == []


def test_an_error_comes_at_its_batch() -> None:
    seen = []
    with pytest.raises(ValueError, match="13 is refused"):  # noqa: PT012
        for number, _ in ordered_map(doubler, iter(range(10, 30)), 2):
            seen.append(number)
    assert seen == [10, 11, 12] and not workers()


def test_a_killed_worker_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="one of 2 worker processes ended without a word: it was killed.*memory"):
        list(ordered_map(doubler, iter(range(14, 1000)), 2))
    assert not workers(), "the other worker has ended too"


def test_a_worker_killed_while_others_start_is_an_error() -> None:
    def kill_first() -> None:
        while not (found := workers()):
            time.sleep(0.005)
        found[0].kill()

    for _ in range(5):
        killer = threading.Thread(target=kill_first)
        killer.start()
        with pytest.raises(RuntimeError, match="one of 3 worker processes"):
            list(ordered_map(doubler, iter(range(100, 1000)), 3))
        killer.join()
        assert not workers()


def test_a_consumer_that_stops_ends_the_workers() -> None:
    results = ordered_map(doubler, iter(range(100, 10_000)), 2)
    assert next(results) == (100, 200)
    assert workers()
    results.close()  # type: ignore[attr-defined]
    assert not workers()


PROGRAM = """
import sys, time
from nemo_ext.rows.engines.processes import ordered_map
class Slow:
    def __call__(self, number):
        time.sleep(0.1)
        return number
if __name__ == "__main__":
    for number, _ in ordered_map(Slow, iter(range(100000)), 2):
        print(number, flush=True)
"""


@pytest.mark.parametrize("wait_for_work", [True, False])
def test_workers_end_with_their_parent(tmp_path: Path, wait_for_work: bool) -> None:
    """However early it is killed: a worker may not have come to its first line."""
    (tmp_path / "program.py").write_text(PROGRAM)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert parent.stdout is not None
        if wait_for_work:
            assert parent.stdout.readline() == b"0\n"
        deadline = time.monotonic() + 60
        while not (children := psutil.Process(parent.pid).children(recursive=True)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        parent.kill()
        parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_available_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
