"""How many requests a server is given at once."""

from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.serving.client.concurrency import Concurrency


def test_a_burst_of_refusals_decreases_it_once() -> None:
    limit = Concurrency(100)
    for _ in range(100):
        limit.overloaded(sent=0.0)
    assert limit.limit == 70


def test_it_recovers_by_one_per_round() -> None:
    limit = Concurrency(100)
    limit.overloaded(sent=0.0)
    for _ in range(70):
        limit.succeeded()
    assert 70.9 < limit.limit < 71.1
    for _ in range(10_000):
        limit.succeeded()
    assert limit.limit == 100


@given(events=st.lists(st.booleans(), max_size=300), most=st.integers(1, 64))
def test_it_stays_between_one_and_the_most(events: list[bool], most: int) -> None:
    limit = Concurrency(most)
    for number, well in enumerate(events):
        limit.succeeded() if well else limit.overloaded(sent=1e12 + number)
        assert 1 <= limit.limit <= most
