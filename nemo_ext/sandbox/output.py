"""The output of a block of code: kept from both ends, and made printable."""

from collections import deque

KEPT_BYTES = 1 << 16


class Output:
    """The first and last KEPT_BYTES of a stream of any length."""

    def __init__(self) -> None:
        self.head = bytearray()
        self.tail: deque[bytes] = deque()
        self.tail_bytes = 0
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = KEPT_BYTES - len(self.head)
        self.head += data[:room]
        if rest := data[room:]:
            self.tail.append(rest)
            self.tail_bytes += len(rest)
            while self.tail_bytes - len(self.tail[0]) >= KEPT_BYTES:
                self.tail_bytes -= len(self.tail.popleft())

    def text(self) -> tuple[str, bool]:
        """(the output as text, whether a middle part is missing). A line in its place says how long it was."""
        tail = b"".join(self.tail)[-KEPT_BYTES:]
        missing = self.total - len(self.head) - len(tail)
        if not missing:
            return printable(bytes(self.head) + tail), False
        return f"{printable(bytes(self.head))}\n... {missing} bytes ...\n{printable(tail)}", True


def printable(data: bytes) -> str:
    """UTF-8 with U+FFFD for every other byte and for control characters, which JSON readers and terminals trip over."""
    text = data.decode(errors="replace").replace("\r\n", "\n")
    return "".join(c if c in "\n\t" or (c >= " " and c != "\x7f") else "\ufffd" for c in text)
