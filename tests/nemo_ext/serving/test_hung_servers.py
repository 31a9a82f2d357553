"""Three servers, processes of their own, of which one dies, hangs without dying, or comes back."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from nemo_ext.serving.client import Stats, complete
from nemo_ext.serving.client_config import ClientConfig
from nemo_ext.serving.failures import ServersDown
from nemo_ext.serving.requests import Completion, Request, Sampling
from tests.nemo_ext.serving.faulty_server import Server, answer_text, servers

SAMPLING = Sampling(1.0, 0.95, 0, 8, (), 3)
COUNT = 600
CONFIG = ClientConfig(timeout_s=30, backoff_s=0.05, all_down_s=15, health_interval_s=0.2, stall_s=1000)
On = Callable[[int], None]


@pytest.fixture
def three() -> Iterator[list[Server]]:
    with servers(3, lambda: Server(delay_s=0.01)) as started:
        yield started


def _run(started: list[Server], at_done: On, config: ClientConfig = CONFIG) -> tuple[list[Completion], Stats]:
    """Every request answered, and answered right; `at_done` is told how many are."""
    results: list[Completion] = []

    def keep(completions: list[Completion]) -> None:
        results.extend(completions)
        at_done(len(results))

    requests = (Request(f"k{i}", f"p{i}", SAMPLING) for i in range(COUNT))
    stats = complete(requests, [server.endpoint for server in started], config, keep)
    assert Counter(c.key for c in results) == Counter(f"k{i}" for i in range(COUNT))
    assert all(c.error is None and c.text == answer_text(f"p{c.key[1:]}", 3) for c in results)
    return results, stats


def _once(number: int, action: Callable[[], None]) -> On:
    return lambda done: action() if done == number else None


def _by(server: Server, results: list[Completion]) -> list[int]:
    return [number for number, c in enumerate(results) if c.replica == server.url]


def test_one_dies(three: list[Server]) -> None:
    results, stats = _run(three, _once(100, three[0].stop))
    assert max(_by(three[0], results)) < 140
    assert stats.retries.total() > 0 and stats.up == 2


def test_one_hangs_and_its_requests_go_elsewhere(three: list[Server]) -> None:
    """Stopped, it still accepts connections; nothing but its silence on /health tells. Requests time out after 30 s."""
    victim = three[1]
    with _continued(victim):
        started = time.monotonic()
        results, stats = _run(three, _once(100, lambda: victim.process.send_signal(signal.SIGSTOP)), _impatient())
        assert time.monotonic() - started < CONFIG.timeout_s
    assert max(_by(victim, results)) < 140
    assert stats.up == 2


def test_one_hangs_and_comes_back(three: list[Server]) -> None:
    victim = three[2]

    def at(done: int) -> None:
        if done == 100:
            victim.process.send_signal(signal.SIGSTOP)
            threading.Timer(3.0, victim.process.send_signal, (signal.SIGCONT,)).start()
        time.sleep(0.01)  # the others take their time, so that it can come back

    with _continued(victim):
        results, stats = _run(three, at, _impatient())
    assert stats.up == 3
    after = [number for number in _by(victim, results) if number > 150]
    assert len(after) > 10


def test_one_is_restarted(three: list[Server]) -> None:
    def at(done: int) -> None:
        if done == 100:
            three[0].stop()
        elif done == 300:
            three[0].start()
        time.sleep(0.004)

    results, stats = _run(three, at)
    assert stats.up == 3
    assert [number for number in _by(three[0], results) if number > 320]


def test_an_engine_that_hangs_behind_a_healthy_front_is_left() -> None:
    """Requests stay open while /health says 200, as was seen with TensorRT-LLM."""
    config = ClientConfig(timeout_s=60, backoff_s=0.05, all_down_s=15, health_interval_s=0.1, stall_s=0.6)
    with servers(2) as (good, hung):
        hung.stop()
        hung.arguments = ["0", "0", "1000"]
        hung.start()
        started = time.monotonic()
        results: list[Completion] = []
        requests = [Request(f"k{i}", f"p{i}", SAMPLING) for i in range(200)]
        stats = complete(requests, [good.endpoint, hung.endpoint], config, results.extend)
        assert time.monotonic() - started < config.timeout_s
    assert len(results) == 200 and all(c.error is None and c.replica == good.url for c in results)
    assert stats.retries.total() > 0


def test_all_hang(three: list[Server]) -> None:
    def stop_all() -> None:
        for server in three:
            server.process.send_signal(signal.SIGSTOP)

    config = ClientConfig(timeout_s=60, backoff_s=0.05, all_down_s=1, health_interval_s=0.1)
    with _continued(*three), pytest.raises(ServersDown, match=r"no answer to /health in 0\.5 s"):
        _run(three, _once(100, stop_all), config)


def _impatient() -> ClientConfig:
    """A hung server is seen by its /health within seconds, not by the 30 s of its requests."""
    return ClientConfig(timeout_s=30, backoff_s=0.05, all_down_s=15, health_interval_s=0.2)


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
    monkeypatch.setattr("nemo_ext.serving.replica.HEALTH_TIMEOUT_S", 0.5)
    monkeypatch.setattr("nemo_ext.serving.replica.TRIAL_TIMEOUT_S", 1.0)


def test_hedged_requests_do_not_wait_for_a_slow_server() -> None:
    config = ClientConfig(timeout_s=60, hedge_after_s=0.2)
    with servers(2) as (good, slow):
        slow.stop()
        slow.arguments = ["0", "0", "20"]
        slow.start()
        results: list[Completion] = []
        started = time.monotonic()
        requests = [Request(f"k{i}", f"p{i}", SAMPLING) for i in range(40)]
        stats = complete(requests, [good.endpoint, slow.endpoint], config, results.extend)
        assert time.monotonic() - started < 15
    assert len(results) == 40 == stats.done and all(c.error is None and c.replica == good.url for c in results)
