"""Sessions by name: limits on their number and on what runs at once, loss, replay, expiry, cancellation."""

import asyncio
import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from nemo_ext.sandbox.sessions import LOST_TEXT, Full, Sessions
from tests.nemo_ext.sandbox.conftest import Service, sessions_of, sleeping, wait_until

PATIENT = 60  # seconds, where no limit is to be met
INTERVAL = "import time\nbegin = time.monotonic()\ntime.sleep(SECONDS)\nprint(begin, time.monotonic())"


def most_at_once(intervals: list[tuple[float, float]]) -> int:
    return max(sum(begin <= at < end for begin, end in intervals) for at, _ in intervals)


def interval(output: str) -> tuple[float, float]:
    begin, end = map(float, output.split())
    return begin, end


def test_50_sessions_in_parallel(any_sandbox: Service) -> None:
    """All 50 run at the same time, and each has its own state."""
    names = [f"parallel-{number}" for number in range(50)]
    with ThreadPoolExecutor(50) as threads:
        list(threads.map(lambda name: any_sandbox.execute(f"mine = {name!r}", name), names))
        replies = list(threads.map(lambda name: any_sandbox.execute("mine", name)["output"], names))
        assert replies == [f"{name!r}\n" for name in names]
        code = "import time\ntime.sleep(90)"
        running = [threads.submit(any_sandbox.execute, code, name, timeout_s=90) for name in names]
        wait_until(lambda: any_sandbox.health["running"] == 50)
        for name in names:
            any_sandbox.request("DELETE", f"/sessions/{name}")
        assert {block.result()["class"] for block in running} == {"died"}
    assert any_sandbox.health["parallel"] == 50


def test_blocks_wait_for_a_core_and_the_wait_is_not_counted() -> None:
    async def run() -> list[tuple[float, float]]:
        async with sessions_of(max_parallel=1) as sessions:
            blocks = [("first", "2.5", PATIENT), *((f"{i}", "0", 2) for i in range(3))]
            code = {name: INTERVAL.replace("SECONDS", seconds) for name, seconds, _ in blocks}
            results = await asyncio.gather(*(sessions.execute(name, code[name], s, []) for name, _, s in blocks))
            assert [result.ended for result, _, _ in results] == ["ok"] * 4
            return [interval(result.output) for result, _, _ in results]

    assert most_at_once(asyncio.run(run())) == 1


def test_blocks_of_one_session_run_one_after_another() -> None:
    async def run() -> None:
        async with sessions_of(max_parallel=8) as sessions:
            code = "n = globals().get('n', 0) + 1\nn"
            results = await asyncio.gather(*(sessions.execute("one", code, PATIENT, []) for _ in range(8)))
            assert sorted(int(result.output) for result, _, _ in results) == list(range(1, 9))
            assert sessions.alive == 1

    asyncio.run(run())


def test_a_lost_session_is_replaced_and_the_next_block_is_told() -> None:
    async def run() -> None:
        async with sessions_of() as sessions:
            await sessions.execute("s", "x = 1", PATIENT, [])
            result, _, message = await sessions.execute("s", "while True: pass", 0.3, [])
            assert (result.ended, result.lost) == ("timeout", True)
            assert message == "TimeoutError: the block ran longer than 0.3 s and was stopped"
            assert sessions.alive == 0
            result, state, message = await sessions.execute("s", "x", PATIENT, [])
            assert (result.ended, state, message) == ("error", "lost", LOST_TEXT)
            _, state, message = await sessions.execute("s", "x = 2", PATIENT, [])
            assert (state, message) == ("kept", "")

    asyncio.run(run())


def test_a_lost_session_is_rebuilt_from_its_history() -> None:
    async def run() -> None:
        async with sessions_of() as sessions:
            history = ["x = 1\nprint('not shown again')", "y = x + 1\n1 / 0"]
            for code in history:
                await sessions.execute("s", code, PATIENT, [])
            await sessions.execute("s", "import os\nos._exit(0)", PATIENT, history)
            result, state, message = await sessions.execute("s", "x, y", PATIENT, history)
            assert (result.output, state, message) == ("(1, 2)\n", "restored", "")
            result, state, _ = await sessions.execute("s", "x += 1\nx", PATIENT, history)
            assert (result.output, state) == ("2\n", "kept"), "the history is not run again in a session that is there"
            result, state, message = await sessions.execute("other", "1", 2, ["import time\ntime.sleep(90)"])
            assert (result.ended, state, message) == ("ok", "lost", LOST_TEXT)

    asyncio.run(run())


def test_one_session_too_many_is_refused_until_another_ends() -> None:
    async def run() -> None:
        async with sessions_of(max_sessions=2) as sessions:
            for name in ("a", "b"):
                await sessions.execute(name, "1", PATIENT, [])
            with pytest.raises(Full):
                await sessions.execute("c", "1", PATIENT, [])
            assert (await sessions.execute("a", "2", PATIENT, []))[0].output == "2\n"
            assert sessions.delete("a")
            assert not sessions.delete("a")
            assert (await sessions.execute("c", "1", PATIENT, []))[0].output == "1\n"
            assert sessions.alive == 2

    asyncio.run(run())


def test_an_idle_session_ends() -> None:
    async def run() -> None:
        async with sessions_of(idle_s=0.3) as sessions:
            watch = asyncio.create_task(sessions.watch())
            await sessions.execute("s", "x = 1", PATIENT, [])
            busy, _, _ = await sessions.execute("busy", "import time\ntime.sleep(0.6)", PATIENT, [])
            assert busy.ended == "ok"
            while sessions.alive > 1:
                await asyncio.sleep(0.02)
            _, state, _ = await sessions.execute("s", "x", PATIENT, [])
            assert state in ("lost", "new")
            while sessions.alive or sessions._entries:
                await asyncio.sleep(0.02)
            watch.cancel()

    asyncio.run(run())


def test_deleting_ends_the_block_that_runs_and_its_processes() -> None:
    async def run() -> None:
        async with sessions_of() as sessions:
            code = "import subprocess\nsubprocess.run(['sleep', '60'])"
            running = asyncio.create_task(sessions.execute("s", code, 60, []))
            queued = asyncio.create_task(sessions.execute("s", "1", 60, []))
            while not sleeping(os.getpid()):
                await asyncio.sleep(0.02)
            sessions.delete("s")
            assert (await running)[0].ended == "died"
            assert (await queued)[0].ended == "died"
            assert sessions.alive == 0
        wait_until(lambda: not sleeping(os.getpid()))

    asyncio.run(run())


def _fork_server(sessions: Sessions) -> psutil.Process:
    assert sessions.forks._process is not None
    return psutil.Process(sessions.forks._process.pid)


def test_a_killed_sessions_output_is_not_read_from_another_file() -> None:
    """Its descriptor's number is free at once, and the next file opened has it."""

    async def run() -> None:
        async with sessions_of() as sessions:
            session = await sessions.forks.session()
            running = asyncio.create_task(session.execute("import time\ntime.sleep(60)", 60))
            await asyncio.sleep(0.1)
            session.kill()
            pipes = [os.pipe() for _ in range(4)]
            for readable, writable in pipes:
                os.set_blocking(readable, False)
                os.write(writable, b"another's")
            assert (await running).output == ""
            for descriptor in (descriptor for pipe in pipes for descriptor in pipe):
                os.close(descriptor)

    asyncio.run(run())


def test_cancelling_a_block_ends_its_session() -> None:
    async def run() -> None:
        async with sessions_of() as sessions:
            running = asyncio.create_task(sessions.execute("s", "while True: pass", PATIENT, []))
            while not sessions.running:
                await asyncio.sleep(0.02)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert (sessions.alive, sessions.running) == (0, set())
            assert (await sessions.execute("s", "1", PATIENT, []))[1] == "lost"

    asyncio.run(run())


def test_the_fork_server_is_replaced_when_it_dies() -> None:
    async def run() -> None:
        async with sessions_of() as sessions:
            await sessions.execute("s", "x = 1", PATIENT, [])
            running = asyncio.create_task(sessions.execute("r", "import time\ntime.sleep(60)", 60, []))
            while not sessions.running:
                await asyncio.sleep(0.02)
            server = _fork_server(sessions)
            processes = [server, *server.children(recursive=True)]
            server.kill()
            assert (await running)[0].ended == "died"
            await asyncio.to_thread(psutil.wait_procs, processes, 60)
            result, state, _ = await sessions.execute("s", "x", PATIENT, ["x = 1"])
            assert (result.output, state) == ("1\n", "restored")

    asyncio.run(run())


def test_nothing_is_left_open() -> None:
    async def run() -> None:
        async with sessions_of() as sessions:
            await sessions.execute("warm", "1", PATIENT, [])
            gc.collect()  # what earlier tests left
            before = psutil.Process().num_fds()
            for number in range(20):
                await sessions.execute(f"{number}", "1" if number % 2 else "import os\nos._exit(1)", PATIENT, [])
                sessions.delete(f"{number}")
            assert psutil.Process().num_fds() <= before
            started = time.monotonic()
            while len(_fork_server(sessions).children(recursive=True)) > 3:  # bubblewrap's own, and session `warm`
                assert time.monotonic() - started < 60
                await asyncio.sleep(0.02)
            processes = [_fork_server(sessions), *_fork_server(sessions).children(recursive=True)]
        _, alive = psutil.wait_procs(processes, timeout=60)
        assert not alive

    asyncio.run(run())


def test_a_service_keeps_no_processes_of_deleted_sessions(start: Callable[..., Service]) -> None:
    service = start()
    idle = len(service.descendants)
    for number in range(8):
        service.execute("import subprocess\np = subprocess.Popen(['sleep', '60'])", f"{number}")
        assert service.request("DELETE", f"/sessions/{number}") == (200, {"deleted": True})
    wait_until(lambda: len(service.descendants) <= idle)
    assert service.health["sessions"] == 0
