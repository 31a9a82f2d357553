"""The token that a sandbox asks for: whoever reaches its port may run code there and read or end others' sessions.

The service makes one and leaves it beside its address file, sandbox.json -> sandbox.token, for its user alone to read.
A client that finds the one finds the other. It is in no log, no URL and no command line.
"""

import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TOKEN_BYTES = 32
TOKEN = re.compile(r"[!-~]{16,512}")
SCHEME = "Bearer "


def token_path(address_file: Path) -> Path:
    return address_file.with_suffix(".token")


@contextmanager
def published(address_file: Path) -> Iterator[str]:
    """A new token, in its file until the block ends; one that a killed service left is used again, for clients that
    wait for it to come back."""
    path = token_path(address_file)
    token = _left_behind(path) or secrets.token_hex(TOKEN_BYTES)
    _write(path, token)
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


def _left_behind(path: Path) -> str | None:
    """The token in a file that nobody else could have written or read."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as handle:
            about = os.fstat(descriptor)
            if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077:
                token = handle.read(1024).decode(errors="replace")
                return token if TOKEN.fullmatch(token) else None
    return None


def _write(path: Path, token: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".token.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(token)
    temporary.replace(path)


def read(address_file: Path) -> str:
    """The token of the service with that address file.

    Raises:
        ValueError: there is none, or it is another user's.
    """
    path = token_path(address_file)
    try:
        return path.read_text()
    except OSError as error:
        raise ValueError(
            f"the sandbox's token cannot be read: {error}. Service and client must run as the same user and see the same "
            f"{path.parent}"
        ) from error


def from_environment(name: str | None, key: str) -> str:
    """The token in the environment variable `name`, which `key` of a config or command line gives.

    Raises:
        ValueError: it names no variable, an unset one, or one without a token. What was given is not shown: it may
            be the token.
    """
    if name is None or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError(
            f"{key}: give the NAME of an environment variable in capitals, such as SANDBOX_TOKEN, and not the token itself"
        )
    token = os.environ.get(name, "")
    if not TOKEN.fullmatch(token):
        state = "holds something else" if token else "is not set"
        raise ValueError(
            f"{key}={name}: that variable {state}; a token has 16 to 512 visible ASCII characters, as from"
            " `openssl rand -hex 32`"
        )
    return token


def header(token: str) -> dict[str, str]:
    """What a request must carry."""
    return {"Authorization": SCHEME + token}


def allows(authorization: str | None, token: str) -> bool:
    """Whether that header names the token; how long this takes says nothing about it."""
    return hmac.compare_digest((authorization or "").encode(), (SCHEME + token).encode())
