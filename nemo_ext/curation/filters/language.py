"""Filters for text that is not what it should be made of: control characters, garbled encodings, symbols, other scripts.

They look at the problem and the solution unless `columns` names others.
"""

import re
import unicodedata
from functools import lru_cache

from nemo_ext.curation.code_blocks import blocks
from nemo_ext.curation.filters.context import Context, Row

TEXTS = ("problem", "generated_solution")

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ufffe\uffff\ue000-\uf8ff]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]{2,}")
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[A-Za-z]{2,}")
_SYMBOL = re.compile(r"[^\w\s]")
_MACRO = re.compile(r"\\[A-Za-z]+")
# Windows-1252 where it differs from Latin-1: how UTF-8 bytes are misread most often
_WINDOWS = {ord(bytes([code]).decode("cp1252", "ignore") or chr(code)): chr(code) for code in range(0x80, 0xA0)}
_NO_SCRIPT = ("MATHEMATICAL", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "PLANCK", "MODIFIER", "FEMININE", "MASCULINE")
_COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "the of is and to in we that so a an are this for it have be by with as if then has there from on which at each "
        "find how what many number answer can since",
    )
)


def control_characters(row: Row, context: Context, *, columns: tuple[str, ...] = TEXTS) -> str | None:
    """NUL and other control characters, replacement characters and private use: traces of a broken conversion."""
    return "control_characters" if any(_CONTROL.search(text) for text in _texts(row, columns)) else None


def mojibake(row: Row, context: Context, *, columns: tuple[str, ...] = TEXTS) -> str | None:
    """UTF-8 that was read as Latin-1 or Windows-1252, so that an e with an accent has become two characters."""
    found = any(map(_misread, _runs(row, columns)))
    return "mojibake" if found else None


def _runs(row: Row, columns: tuple[str, ...]) -> list[str]:
    texts = [text for text in _texts(row, columns) if not text.isascii()]
    return [run for text in texts for run in _BEYOND_ASCII.findall(text)]


def _misread(run: str) -> bool:
    try:
        meant = run.translate(_WINDOWS).encode("latin-1").decode()
    except UnicodeError:
        return False
    # two characters that stand for one beyond Latin and Greek stand rather for themselves
    return any(letter < "\u0400" or letter > "\u07ff" for letter in meant)


def symbols(
    row: Row, context: Context, *, max_share: float = 0.6, min_chars: int = 50, columns: tuple[str, ...] = TEXTS
) -> str | None:
    """Most of the text is neither letters, digits nor white space."""
    for text in _texts(row, columns):
        if len(text) >= min_chars and len(_SYMBOL.findall(text)) > max_share * len(text):
            return "symbols"
    return None


def wrong_script(
    row: Row,
    context: Context,
    *,
    scripts: tuple[str, ...] = ("LATIN", "GREEK"),
    max_share: float = 0.05,
    columns: tuple[str, ...] = TEXTS,
) -> str | None:
    """More than `max_share` of the letters belong to other scripts, as Unicode names them (LATIN, GREEK, CYRILLIC, CJK).

    Letters of mathematics (blackboard bold and the like) belong to none and pass.
    """
    for text in _texts(row, columns):
        if text.isascii():
            continue
        letters = _LETTER.findall(text)
        other = sum(1 for letter in letters if letter > "\x7f" and _script(letter) not in (*scripts, ""))
        if other > max_share * len(letters):
            return "wrong_script"
    return None


@lru_cache(maxsize=1 << 14)
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "UNKNOWN")
    return "" if name.startswith(_NO_SCRIPT) else name.split()[0]


def not_english(
    row: Row,
    context: Context,
    *,
    min_words: int = 30,
    min_share: float = 0.05,
    columns: tuple[str, ...] = TEXTS,
) -> str | None:
    """Fewer than `min_share` of its words are the most common English ones. Texts of fewer than `min_words` words pass."""
    texts = [_without_code(text) for text in _texts(row, columns)]
    words = _WORD.findall(_MACRO.sub(" ", " ".join(texts)).lower())
    if len(words) < min_words:
        return None
    common = sum(word in _COMMON_WORDS for word in words)
    return "not_english" if common < min_share * len(words) else None


def _without_code(text: str) -> str:
    found = blocks(text) or []
    edges = [0, *(edge for block in found for edge in (block.start, block.end)), len(text)]
    return "".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


def _texts(row: Row, columns: tuple[str, ...]) -> list[str]:
    return [text for column in columns if isinstance(text := row.get(column), str)]
