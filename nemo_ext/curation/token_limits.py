"""Compare a text's length with a limit in tokens: tokenised only where its bytes leave that open, then word by word.

A byte-level BPE makes at most one token of each byte, and at least one of every as many bytes as its longest token has:
most rows are settled by that. For the rest the pieces between spaces, each counted once and remembered, add up to the
whole for tokenizers that never join a space to what stands before it. Of any other tokenizer nothing is assumed: it is
asked for the whole text.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from nemo_ext.models.model import Model

_NEVER_ACROSS_A_SPACE = (
    # Llama 3, Qwen 2, and nemo_ext's own tiny tokenizers; GPT-2's is built into the tokenizers library
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r" ?\p{L}+|\p{N}|\n+| ?[^\s\p{L}\p{N}]+|\s+",
)
# Cut before a space that follows something else than white space: line breaks may belong to what is around them.
_PIECE = re.compile(r"\s*+\S++(?:[^\S ]\s*+\S++)*+(?:[^\S ]\s*+$)?|\s++$")
_BETWEEN_PIECES = re.compile(r"(?<=\S) ")
_STRETCH = 512
_REMEMBERED = 200_000  # pieces, some 25 MB
_BYTES = 256
IN_CHARACTERS = "give limits in characters instead: params: {max_tokens: null, max_chars: 4000}"
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


def _stretches(text: str) -> Iterator[str]:
    """The text in parts of some _STRETCH characters, cut where pieces are."""
    start = 0
    while start < len(text):
        cut = _BETWEEN_PIECES.search(text, start + _STRETCH)
        end = cut.start() if cut else len(text)
        yield text[start:end]
        start = end


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def serialised_tokenizer(model: Model) -> str:
    """The model's tokenizer as the `tokenizers` library writes it, which is what worker processes start from.

    Raises:
        ValueError: there is no such folder, or the tokenizer is written in Python alone.
    """
    folder = Path(model.hf_path).expanduser()
    if as_it_lies := _tokenizer_file(folder):
        return as_it_lies
    if not folder.is_dir() and (folder.is_absolute() or model.hf_path.count("/") > 1):
        raise ValueError(
            f"model {model.name}: there is no folder {folder}, and its tokenizer counts the token limits. Say where a "
            f"tokenizer is with student.hf_path=<folder or hub id>, or {IN_CHARACTERS}"
        )
    from nemo_ext.models.chat_tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer(model).tokenizer
    if not tokenizer.is_fast:
        raise ValueError(
            f"model {model.name}: its tokenizer has no tokenizer.json, which token limits are counted with: {IN_CHARACTERS}"
        )
    return tokenizer.backend_tokenizer.to_str()


def _tokenizer_file(folder: Path) -> str | None:
    """tokenizer.json where transformers would take it unchanged; importing that takes two seconds and 300 MB."""
    try:
        text, config = (
            (folder / "tokenizer.json").read_text(),
            json.loads((folder / "tokenizer_config.json").read_text()),
        )
    except (OSError, json.JSONDecodeError):
        return None
    added = {token["content"] for token in json.loads(text).get("added_tokens") or []}
    named = [config.get(f"{role}_token") for role in ("bos", "eos", "pad", "unk", "sep", "cls", "mask")]
    named += [*config.get("added_tokens_decoder", {}).values(), *(config.get("additional_special_tokens") or [])]
    contents = {token["content"] if isinstance(token, dict) else token for token in named if token}
    plain = config.get("tokenizer_class") in _PLAIN_CLASSES and "add_prefix_space" not in config
    return text if plain and contents <= added else None


class TokenLengths(Protocol):
    """What length filters ask."""

    def above(self, text: str, limit: int) -> bool:
        """More than `limit` tokens?"""

    def below(self, text: str, limit: int) -> bool:
        """Fewer than `limit` tokens?"""


class Counted:
    """Limits held by a function that counts the tokens of a text; by default its characters."""

    def __init__(self, count: Callable[[str], int] = len) -> None:
        self.count = count

    def above(self, text: str, limit: int) -> bool:
        return self.count(text) > limit

    def below(self, text: str, limit: int) -> bool:
        return self.count(text) < limit


class Bounded:
    """Limits held by the tokenizer whose `tokenizers` serialisation is given. Always what counting the whole text would
    say."""

    def __init__(self, serialised: str) -> None:
        self._serialised = serialised
        self._facts: _Facts | None = None
        self._tokenizer: Any = None
        self._pieces: dict[str, int] = {}
        self.num_counted = 0
        """Texts whose bytes left it open."""

    def above(self, text: str, limit: int) -> bool:
        low, high = self.bounds(text)
        return low > limit or (high > limit and self._counts_above(text, limit, high))

    def below(self, text: str, limit: int) -> bool:
        return not self.above(text, limit - 1)

    def bounds(self, text: str) -> tuple[float, float]:
        """Fewest and most tokens that the text can have, from its bytes alone."""
        facts = self.facts
        if not facts.at_most_bytes or not (facts.keeps_text or text.isascii()):
            return 0, math.inf
        size = _num_bytes(text)
        return size / facts.longest_token, size

    def _counts_above(self, text: str, limit: int, most: float) -> bool:
        """Counts stretch after stretch, until the bytes that are left can change nothing."""
        self.num_counted += 1
        if not self.facts.never_across_a_space or most == math.inf:
            return self._whole(text) > limit
        count, surplus = 0, most - limit  # bytes that must turn out not to be a token
        for stretch in _stretches(text):
            tokens = self._tokens(stretch)
            count += tokens
            surplus -= _num_bytes(stretch) - tokens
            if count > limit or surplus <= 0:
                break
        return count > limit

    def _tokens(self, stretch: str) -> int:
        if len(self._pieces) > _REMEMBERED:
            self._pieces.clear()
        pieces = _PIECE.findall(stretch)
        counts = list(map(self._pieces.get, pieces))
        if None in counts:
            for piece, count in zip(pieces, counts, strict=True):
                if count is None:
                    self._pieces[piece] = self._whole(piece)
            counts = [self._pieces[piece] for piece in pieces]
        return sum(counts)  # type: ignore[arg-type]

    @property
    def facts(self) -> "_Facts":
        if self._facts is None:
            self._facts = _Facts(json.loads(self._serialised))
        return self._facts

    def _whole(self, text: str) -> int:
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_str(self._serialised)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


class _Facts:
    """What a serialised tokenizer says of token lengths."""

    def __init__(self, content: dict[str, Any]) -> None:
        model, added = content["model"], content.get("added_tokens") or []
        vocabulary = model.get("vocab") or {}
        steps = _steps(content.get("pre_tokenizer"))
        self.at_most_bytes = (
            model.get("type") == "BPE"
            and not model.get("dropout")
            and not model.get("continuing_subword_prefix")
            and not model.get("end_of_word_suffix")
            and sum(len(token) == 1 for token in vocabulary) >= _BYTES
            and [step for step in steps if step["type"] == "ByteLevel" and not step.get("add_prefix_space")] != []
            and all(step["type"] in ("ByteLevel", "Split") and not step.get("add_prefix_space") for step in steps)
            and all(step.get("behavior", "Isolated") == "Isolated" for step in steps)
            and (content.get("normalizer") or {"type": "NFC"})["type"] == "NFC"
        )
        self.keeps_text = not content.get("normalizer")
        """No normaliser may change the number of bytes; NFC leaves ASCII alone."""
        swallows = any(token.get("lstrip") or token.get("rstrip") for token in added)
        self.longest_token = math.inf  # in bytes; a byte is one character of such a vocabulary
        if not swallows:
            longest_added = max((len(token["content"].encode()) for token in added), default=1)
            self.longest_token = max([*map(len, vocabulary), longest_added])
        apart = [token for token in added if token.get("single_word") or re.search(r"\s", token["content"])]
        self.never_across_a_space = bool(
            self.at_most_bytes and not swallows and not apart and any(map(_cuts_before_space, steps))
        )


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not pre_tokenizer:
        return []
    return pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _cuts_before_space(step: dict[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step.get("use_regex", True))
    return step.get("pattern", {}).get("Regex") in _NEVER_ACROSS_A_SPACE and not step.get("invert")
