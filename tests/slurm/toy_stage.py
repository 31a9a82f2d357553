"""Stands in for stages on a real Slurm. Standard library only.

toy_stage.py prepare <folder>          writes ready.json
toy_stage.py serve <address file>      an HTTP server for anyone, its address in the file
toy_stage.py train <folder>            every rank asks the service, the ranks meet on MASTER_ADDR, rank 0 writes done.json
toy_stage.py ask <folder>              asks the server for a completion, done.json once the server's log has all tasks in it
toy_stage.py break <folder>            kills the server's last task once it serves, and waits
toy_stage.py eat <folder>              takes 1 GB of memory and holds it
toy_stage.py preempt <folder>          ends with 85 on SIGUSR1, and with 0 when it is started again
"""

import json
import os
import signal
import socket
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from nemo_ext.machine.process import die_with_parent
from nemo_ext.records.files import write_json_atomic

WAIT_S = 120
HELD_S = 600
"""How long those stages hold that the test ends."""


def wait_for(path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.1)
    return json.loads(path.read_text())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(socket.gethostname().encode())


def serve(address_file: Path) -> None:
    server = HTTPServer(("", 0), Handler)
    write_json_atomic(address_file, {"url": f"http://{socket.gethostname()}:{server.server_port}"})
    server.serve_forever()


def wait_for_lines(log: Path, *parts: str) -> None:
    """srun passes on late, and drops when the step is ended, what the other tasks have written."""
    deadline = time.monotonic() + WAIT_S
    while missing := [part for part in parts if not log.exists() or part not in log.read_text()]:
        assert time.monotonic() < deadline, f"{log} has no {missing}"
        time.sleep(0.1)


def meet(rank: int, world_size: int, mine: str) -> list[str]:
    """What each rank says, on rank 0; nothing on the others."""
    address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    if rank > 0:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                with socket.create_connection(address, timeout=5) as peer:
                    peer.sendall(mine.encode())
                return []
            except OSError:
                assert time.monotonic() < deadline, f"rank 0 is not at {address}"
                time.sleep(0.1)
    said = [mine]
    with socket.create_server(address) as listener:
        listener.settimeout(WAIT_S)
        for _ in range(world_size - 1):
            peer, _ = listener.accept()
            with peer:
                said.append(peer.recv(1024).decode())
    return said


def train(folder: Path) -> None:
    assert (folder.parent / "prepare" / "ready.json").exists(), "prepare has not run before"
    url = wait_for(folder / "server.json")["url"]
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=WAIT_S) as reply:
        served_by = reply.read().decode()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    said = meet(rank, world_size, f"rank {rank} local {os.environ['LOCAL_RANK']} on {socket.gethostname()}")
    if rank == 0:
        env = {key: os.environ.get(key) for key in ("TOKEN", "UNLISTED", "MODE", "CUDA_VISIBLE_DEVICES")}
        write_json_atomic(folder / "done.json", {"said": said, "served_by": served_by, "env": env})


def ask(folder: Path) -> None:
    address = wait_for(folder / "server-0.json")
    body = json.dumps({"model": address["model"], "prompt": "hello"}).encode()
    request = urllib.request.Request(f"{address['url']}/v1/completions", body)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=WAIT_S) as reply:
        text = json.loads(reply.read())["choices"][0]["text"]
    wait_for_lines(folder / "logs" / "server-0.log", "0: ", "3: ")
    write_json_atomic(folder / "done.json", {"text": text, "asked_from": socket.gethostname(), "address": address})


def break_server(folder: Path) -> None:
    wait_for(folder / "server-0.json")
    os.kill(wait_for(folder / "task-3.json")["pid"], signal.SIGKILL)  # the nodes are one machine's
    time.sleep(HELD_S)


def eat(folder: Path) -> None:
    held = b"x" * (1 << 30)
    time.sleep(HELD_S)
    (folder / "held").write_text(str(len(held)))


def preempt(folder: Path) -> None:
    attempts = folder / "attempts"
    with attempts.open("a") as handle:
        handle.write(f"{os.environ.get('SLURM_RESTART_COUNT', '0')}\n")
    if attempts.read_text().count("\n") > 1:
        return
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(85))
    (folder / "waiting").touch()
    time.sleep(HELD_S)


def main(what: str, path: Path) -> None:
    die_with_parent(signal.SIGTERM)
    if what == "prepare":
        write_json_atomic(path / "ready.json", {})
    elif what == "fail":
        raise SystemExit(7)
    else:
        {"serve": serve, "train": train, "ask": ask, "break": break_server, "eat": eat, "preempt": preempt}[what](path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
