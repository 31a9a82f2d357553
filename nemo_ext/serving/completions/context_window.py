"""Check that a prompt and its completion fit the model's window, before a server is asked."""

from pathlib import Path

from tokenizers import Tokenizer

from nemo_ext.serving.client.requests import Completion, Request

TOO_LONG = "prompt_too_long"
TEMPLATE_BYTES = 512  # of special tokens and headers that a chat template may add


class Window:
    """`num_tokens` of prompt and completion together; `hf_path` may hold the tokenizer.

    Most prompts are seen to fit by their bytes, of which a token takes at least one. Only the others are tokenised; with
    no tokenizer at hand the server decides.
    """

    def __init__(self, num_tokens: int, hf_path: str) -> None:
        self.num_tokens = num_tokens
        self._file = Path(hf_path) / "tokenizer.json"
        self._tokenizer: Tokenizer | None = None

    def refusal(self, request: Request) -> str | None:
        """Why it cannot fit; None when it does, or when nobody can tell here."""
        max_tokens = request.sampling.max_tokens
        text = request.prompt if isinstance(request.prompt, str) else "".join(m["content"] for m in request.prompt)
        if len(text.encode()) + TEMPLATE_BYTES + max_tokens <= self.num_tokens or not self._file.is_file():
            return None
        self._tokenizer = self._tokenizer or Tokenizer.from_file(str(self._file))
        count = len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        if count + max_tokens <= self.num_tokens:
            return None
        return (
            f"the prompt has {count:,} tokens; with max_tokens={max_tokens:,} it exceeds the window of "
            f"{self.num_tokens:,}. Lower sampling.max_tokens, or raise server.max_seq_len if the model has more"
        )


def too_long(key: str, why: str) -> Completion:
    return Completion(key, "", None, 0, 0, 0.0, why, 0, error_kind=TOO_LONG)
