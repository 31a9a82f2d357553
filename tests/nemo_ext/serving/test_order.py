"""Groups of samples, and the order at the end of a run."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.serving.address import Dialect
from nemo_ext.serving.client.requests import Request, Sampling
from nemo_ext.serving.completions.request_order import grouped, longest_last_first

SAMPLING = Sampling(1.0, 1.0, 0, 8, (), 0)


def _request(prompt: str, number: int) -> Request:
    return Request(f"{prompt}{number}", prompt, replace(SAMPLING, seed=number))


@given(counts=st.lists(st.integers(1, 9), max_size=6), size=st.integers(1, 5))
def test_groups_hold_neighbours_of_one_prompt_and_lose_none(counts: list[int], size: int) -> None:
    requests = [_request(f"p{i}", k) for i, count in enumerate(counts) for k in range(count)]
    groups = list(grouped(requests, size))
    assert [key for group in groups for key in group.keys] == [request.key for request in requests]
    assert all(len(group.keys) <= size and len({key[:2] for key in group.keys}) == 1 for group in groups)
    assert len(groups) == sum(-(-count // size) for count in counts)
    firsts = {request.key: request for request in requests}
    assert all(group.sampling == firsts[group.key].sampling for group in groups)


def test_other_sampling_is_no_neighbour() -> None:
    first = _request("p", 0)
    other = Request("x", "p", replace(SAMPLING, seed=1, temperature=0.5))
    assert [group.keys for group in grouped([first, other], 8)] == [("p0",), ("x",)]


def test_a_group_is_sent_as_n() -> None:
    (group,) = grouped([_request("p", k) for k in range(3)], 8)
    assert b'"n":3' in group.body("m", Dialect()) and b'"seed":0' in group.body("m", Dialect())
    assert b'"n"' not in _request("p", 0).body("m", Dialect())


@given(lengths=st.lists(st.integers(0, 50), max_size=40), window=st.integers(0, 12))
def test_only_the_last_ones_change_places(lengths: list[int], window: int) -> None:
    requests = [Request(str(i), "x" * length, SAMPLING) for i, length in enumerate(lengths)]
    out = list(longest_last_first(requests, window))
    kept = max(0, len(requests) - window)
    assert out[:kept] == requests[:kept]
    assert sorted(r.key for r in out) == sorted(r.key for r in requests)
    tail = [len(request.prompt) for request in out[kept:]]
    assert tail == sorted(tail, reverse=True)


def test_no_more_than_the_window_is_held() -> None:
    taken = 0

    def requests():
        nonlocal taken
        for i in range(1000):
            taken += 1
            yield _request("p", i)

    ordered = longest_last_first(requests(), 10)
    for number in range(1, 900):
        next(ordered)
        assert taken == number + 10
