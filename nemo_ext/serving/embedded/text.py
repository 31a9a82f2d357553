"""Tokens to text while they arrive: complete characters only, cut at the first stop string."""

from operator import itemgetter

from tokenizers import Tokenizer, decoders


def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, as byte-level BPE vocabularies spell them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()
UNFINISHED = "\ufffd"  # what a decoder prints for the first bytes of a character


def token_bytes(tokenizer: Tokenizer, token: int) -> list[int]:
    """What a token adds to the text in UTF-8; part of a character for some, which is why OpenAI reports bytes."""
    spelling = tokenizer.id_to_token(token)
    special = token in tokenizer.get_added_tokens_decoder()
    if spelling is not None and not special and isinstance(tokenizer.decoder, decoders.ByteLevel):
        return [BYTE_OF_CHARACTER[character] for character in spelling]
    return list(tokenizer.decode([token], skip_special_tokens=False).encode())


class TextStream:
    """The text of one choice. `text` grows with `push`; `matched` is the stop string that was found and trimmed.

    Only the tokens since the last complete character are decoded again, and only the text that could hold a new stop
    string is searched, so the cost per token does not grow with the text.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._overlap = max((len(s) for s in stop), default=1) - 1
        self._context: list[int] = []  # the tokens before the pending ones, for decoders that need a neighbour
        self._context_text = ""
        self._pending: list[int] = []
        self._taken = 0
        self.text = ""
        self.matched: str | None = None

    @property
    def stopped(self) -> bool:
        return self.matched is not None

    def push(self, token: int) -> None:
        self._pending.append(token)
        decoded = self._decode(self._context + self._pending)
        if not decoded.endswith(UNFINISHED):
            self._accept(decoded)

    def finish(self) -> None:
        """Take what is pending even if its last character is incomplete."""
        if self._pending and not self.stopped:
            self._accept(self._decode(self._context + self._pending))

    def take(self, *, final: bool) -> str:
        """Text not taken yet, keeping back what may turn out to begin a stop string unless `final`."""
        end = len(self.text) if final else max(self._taken, len(self.text) - self._overlap)
        piece = self.text[self._taken : end]
        self._taken = end
        return piece

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def _accept(self, decoded: str) -> None:
        start = max(0, len(self.text) - self._overlap)
        self.text += decoded[len(self._context_text) :]
        self._context, self._pending = self._pending, []
        self._context_text = self._decode(self._context)
        found = [(at, stop) for stop in self._stop if (at := self.text.find(stop, start)) >= 0]
        if found:
            end, self.matched = min(found, key=itemgetter(0))
            self.text = self.text[:end]
