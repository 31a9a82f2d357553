"""Text that grows token by token equals text decoded at once, and ends before the first stop string."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from nemo_ext.serving.embedded.text import TextStream, token_bytes


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    from tests.nemo_ext.serving.tiny_checkpoint import make_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(400).save_pretrained(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _run(tokenizer: Tokenizer, tokens: list[int], stop: tuple[str, ...]) -> tuple[TextStream, list[str]]:
    stream, pieces = TextStream(tokenizer, stop), []
    for token in tokens:
        stream.push(token)
        if stream.stopped:
            break
        pieces.append(stream.take(final=False))
    stream.finish()
    pieces.append(stream.take(final=True))
    return stream, pieces


anything = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@anything
@given(tokens=st.lists(st.integers(0, 399), max_size=60))
def test_pieces_join_to_the_whole_text_even_for_broken_characters(tokenizer: Tokenizer, tokens: list[int]) -> None:
    stream, pieces = _run(tokenizer, tokens, ())
    assert "".join(pieces) == stream.text == tokenizer.decode(tokens, skip_special_tokens=True)


@anything
@given(
    words=st.lists(st.sampled_from(["Ann", " has", "\n", "\n\n", "李雷", "ab", "aab", " Äpfel", "é"]), max_size=20),
    stop=st.lists(st.sampled_from(["\n\n", "aab", "雷A", "é", " has\n"]), max_size=3),
)
def test_stops_at_the_first_stop_string(tokenizer: Tokenizer, words: list[str], stop: list[str]) -> None:
    text = "".join(words)
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    stream, pieces = _run(tokenizer, tokens, tuple(stop))
    found = [text.find(s) for s in stop if s in text]
    # Of two stop strings completed by one token the earlier start wins; one completed by an earlier token ends the text.
    ends = min((text.find(s) + len(s) for s in stop if s in text), default=None)
    assert stream.stopped == bool(found)
    assert "".join(pieces) == stream.text
    assert text.startswith(stream.text)
    if ends is None:
        assert stream.text == text
    else:
        assert len(stream.text) < ends
        assert not any(s in stream.text for s in stop)


def test_a_stop_string_across_tokens_never_reaches_a_streaming_client(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("Ann has\n\nProblem: more", add_special_tokens=False).ids
    stream, pieces = _run(tokenizer, tokens, ("\n\nProblem:",))
    assert stream.matched == "\n\nProblem:"
    assert "".join(pieces) == "Ann has"


def test_of_two_stop_strings_the_one_that_starts_first_is_reported(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("Ann has\n\nmore", add_special_tokens=False).ids
    assert _run(tokenizer, tokens, ("\nmore", "\n\nmore"))[0].matched == "\n\nmore"
    assert _run(tokenizer, tokens, ("never",))[0].matched is None


def test_bytes_of_a_split_character(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("Ω €", add_special_tokens=False).ids
    assert bytes(byte for token in tokens for byte in token_bytes(tokenizer, token)).decode() == "Ω €"
    assert bytes(token_bytes(tokenizer, tokenizer.token_to_id("<|end|>"))) == b"<|end|>"
