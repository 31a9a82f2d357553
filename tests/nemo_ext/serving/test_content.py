"""Which completions are kept but counted as flawed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.serving.client.reply_flaws import TAIL, content_class, ends_in_loop


@pytest.mark.parametrize(
    ("text", "finish_reason", "expected"),
    [
        ("", "stop", "empty"),
        (" \n\t", "length", "empty"),
        ("The answer is 5.", "stop", "ok"),
        ("So x = 5 and " + "then y = 7, hence z = 12 " * 2, "length", "length"),
        ("First, " + "we add 2 and 2. " * 60, "length", "repetition"),
        ("0" * 2000, "length", "repetition"),
        ("First, " + "we add 2 and 2. " * 60, "stop", "ok"),  # it came to an end by itself
        ("a" * 100, "length", "length"),  # too short to tell
    ],
)
def test_classes(text: str, finish_reason: str, expected: str) -> None:
    assert content_class(text, finish_reason) == expected


@given(piece=st.text(st.sampled_from("abc 12\n"), min_size=1, max_size=TAIL // 4), before=st.text(max_size=50))
def test_every_repeated_piece_is_found_wherever_it_is_cut(piece: str, before: str) -> None:
    assert ends_in_loop(before + (piece * TAIL)[: 2 * TAIL + len(before)])


def test_numbered_steps_are_no_loop() -> None:
    assert not ends_in_loop("".join(f"{i} + {i} = {2 * i}. " for i in range(100)))
