"""Three servers, processes of their own, of which one dies, hangs without dying, or comes back."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from nemo_ext.serving.client.client import Stats, complete
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.failures import ServersDown
from nemo_ext.serving.client.requests import Completion, Request, Sampling
from tests.nemo_ext.serving.faulty_server import Server, answer_text, servers

SAMPLING = Sampling(1.0, 0.95, 0, 8, (), 3)
COUNT = 400
MOST_S = 60
CONFIG = ClientConfig(timeout_s=90, backoff_s=0.05, all_down_s=60, health_interval_s=0.2, stall_s=1000)
"""A hung server is seen by its /health within seconds, not by the 90 s of its requests."""
On = Callable[[int], None]


@pytest.fixture(scope="module")
def started() -> Iterator[list[Server]]:
    with servers(3, lambda: Server(delay_s=0.01)) as running:
        yield running


@pytest.fixture
def three(started: list[Server]) -> list[Server]:
    for server in started:
        if server.process.poll() is not None:  # an earlier test's victim
            server.start()
    return started


class _Asking:
    """Requests as long as `more` says so, after the first COUNT; what they were answered, in `results`."""

    def __init__(self, more: Callable[["_Asking"], bool] = lambda asking: False) -> None:
        self.more = more
        self.count = 0
        self.results: list[Completion] = []

    def __iter__(self) -> Iterator[Request]:
        deadline = time.monotonic() + MOST_S
        while self.count < COUNT or (self.more(self) and time.monotonic() < deadline):
            yield Request(f"k{self.count}", f"p{self.count}", SAMPLING)
            self.count += 1

    def by(self, server: Server) -> list[int]:
        """Which of the answers it gave."""
        return [number for number, c in enumerate(self.results) if c.replica == server.url]


def _run(
    started: list[Server],
    at_done: On,
    config: ClientConfig = CONFIG,
    asking: _Asking | None = None,
    on_tick: Callable[[Stats], None] | None = None,
) -> tuple[_Asking, Stats]:
    """Every request answered, and answered right; `at_done` is told how many are."""
    asking = asking or _Asking()
    results = asking.results

    def keep(completions: list[Completion]) -> None:
        results.extend(completions)
        at_done(len(results))

    stats = complete(asking, [server.endpoint for server in started], config, keep, on_tick)
    assert Counter(c.key for c in results) == Counter(f"k{i}" for i in range(asking.count))
    assert all(c.error is None and c.text == answer_text(f"p{c.key[1:]}", 3) for c in results)
    return asking, stats


def _once(number: int, action: Callable[[], None]) -> On:
    return lambda done: action() if done == number else None


def test_one_dies(three: list[Server]) -> None:
    asked, stats = _run(three, _once(100, three[0].stop))
    assert max(asked.by(three[0])) < 140
    assert stats.retries.total() > 0 and stats.up == 2


def test_one_hangs_and_its_requests_go_elsewhere(three: list[Server]) -> None:
    """Stopped, it still accepts connections; nothing but its silence on /health tells."""
    victim = three[1]
    with _continued(victim):
        asked, stats = _run(three, _once(100, lambda: victim.process.send_signal(signal.SIGSTOP)))
    assert max(asked.by(victim)) < 140
    assert stats.up == 2
    assert not stats.retries["timeout"], "its requests were not waited for"


def test_one_hangs_and_comes_back(three: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_ext.serving.client.client.TICK_S", 0.05)
    victim, back = three[2], 0

    def at(done: int) -> None:
        if done == 100:
            victim.process.send_signal(signal.SIGSTOP)
        time.sleep(0.005)  # fewer requests until it is back

    def tick(stats: Stats) -> None:
        nonlocal back
        if not back and stats.up == 2:
            victim.process.send_signal(signal.SIGCONT)
            back = stats.done

    def answers(asked: _Asking) -> int:
        return sum(number > back + 50 for number in asked.by(victim))

    with _continued(victim):
        asked, stats = _run(three, at, asking=_Asking(lambda asked: not back or answers(asked) <= 10), on_tick=tick)
    assert stats.up == 3
    assert back and answers(asked) > 10


def test_one_is_restarted(three: list[Server]) -> None:
    def at(done: int) -> None:
        if done == 100:
            three[0].stop()
        elif done == 200:
            three[0].start()

    def again(asked: _Asking) -> bool:
        return max(asked.by(three[0])) > 220

    asked, stats = _run(three, at, asking=_Asking(lambda asked: not again(asked)))
    assert stats.up == 3
    assert again(asked)


def test_an_engine_that_hangs_behind_a_healthy_front_is_left() -> None:
    """Requests stay open while /health says 200, as was seen with TensorRT-LLM."""
    config = ClientConfig(timeout_s=90, backoff_s=0.05, all_down_s=60, health_interval_s=0.1, stall_s=0.6)
    with servers(1) as (good,), servers(1, lambda: Server(delay_s=1000)) as (hung,):
        results: list[Completion] = []
        requests = [Request(f"k{i}", f"p{i}", SAMPLING) for i in range(200)]
        stats = complete(requests, [good.endpoint, hung.endpoint], config, results.extend)
    assert len(results) == 200 and all(c.error is None and c.replica == good.url for c in results)
    assert stats.retries.total() > stats.retries["timeout"] == 0


def test_all_hang(three: list[Server]) -> None:
    def stop_all() -> None:
        for server in three:
            server.process.send_signal(signal.SIGSTOP)

    config = ClientConfig(timeout_s=60, backoff_s=0.05, all_down_s=1, health_interval_s=0.1)
    with _continued(*three), pytest.raises(ServersDown, match=r"no answer to /health in 0\.5 s"):
        _run(three, _once(100, stop_all), config)


class _continued:
    """Whatever happens, stopped processes are let go on, so that they can be ended."""

    def __init__(self, *victims: Server) -> None:
        self.victims = victims

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        for victim in self.victims:
            victim.process.send_signal(signal.SIGCONT)


@pytest.fixture(autouse=True)
def _short_health_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_ext.serving.client.replica.HEALTH_TIMEOUT_S", 0.5)
    monkeypatch.setattr("nemo_ext.serving.client.replica.TRIAL_TIMEOUT_S", 1.0)


def test_hedged_requests_do_not_wait_for_a_slow_server() -> None:
    config = ClientConfig(timeout_s=90, hedge_after_s=0.2)
    with servers(1) as (good,), servers(1, lambda: Server(delay_s=1000)) as (slow,):
        results: list[Completion] = []
        requests = [Request(f"k{i}", f"p{i}", SAMPLING) for i in range(40)]
        stats = complete(requests, [good.endpoint, slow.endpoint], config, results.extend)
    assert not stats.retries["timeout"]
    assert len(results) == 40 == stats.done and all(c.error is None and c.replica == good.url for c in results)
