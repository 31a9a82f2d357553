"""The arguments of every filter: a row, and what is needed beyond it."""

from dataclasses import dataclass, field
from typing import Any

from nemo_ext.curation.token_limits import Counted, TokenLengths

Row = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """Without a tokenizer lengths in tokens are lengths in characters."""

    tokens: TokenLengths = field(default_factory=Counted)
