"""A completions server that answers at once with the same text: what is left to measure is the client.

with canned_server() as url: ...
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

REPLY = json.dumps(
    {
        "choices": [{"index": 0, "text": "x" * 800, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 200},
    }
).encode()
MODELS = json.dumps({"object": "list", "data": [{"id": "canned", "object": "model"}]}).encode()
SERVER = """
import asyncio, json, sys, uvloop
reply, models = json.loads(sys.stdin.buffer.readline()), json.loads(sys.stdin.buffer.readline())
def http(body):
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(data)
    return head + data
answer, listing = http(reply), http(models)
class Canned(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        head, end, body = self.data.partition(b"\\r\\n\\r\\n")
        if end and head.startswith(b"GET"):
            self.data = b""
            self.transport.write(listing)
        elif end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(None, 1)[0]):
            self.data = b""
            self.transport.write(answer)
async def main():
    server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
uvloop.run(main())
"""


@contextmanager
def canned_server() -> Iterator[str]:
    """Its URL."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(REPLY + b"\n" + MODELS + b"\n")
    process.stdin.close()
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
