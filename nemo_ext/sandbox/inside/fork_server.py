"""Imports the preloaded modules once and forks a session from itself for every message; started by launch.py.

    python -s -P -m nemo_ext.sandbox.inside.fork_server CHANNEL_FD SETTINGS_JSON

A message on the channel carries two file descriptors, a session's own channel and its output. On a session's channel
(SOCK_SEQPACKET, so one packet is one message) the service sends `x` + code and gets back {"class": "..."}; the first
packet a session sends is {"class": "ready"}, or {"failed": "..."}. The channel's end is ours. A session passes on no
descriptor: the kernel limits those in flight per user, and all sessions are one. Our first message, `ready`, carries our
/proc.
"""

import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

from nemo_ext.sandbox.inside import isolate, seccomp
from nemo_ext.sandbox.inside.repl import Repl

MAX_MESSAGE = 1 << 18
OUTPUT_FD, CHANNEL_FD = 10, 11
SEED = 0


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[2])
    if settings["isolation"] == "namespaces":
        isolate.enter_namespaces(settings["readable"])
    if settings["isolation"] != "none":
        isolate.become_unprivileged()
    isolate.die_with_parent()
    channel = socket.socket(fileno=int(sys.argv[1]))
    sys.path[:] = [path for path in sys.path if path != settings["code"]]
    for name in settings["preload"]:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  it may be any module's
            channel.send(f"sandbox.preload: cannot import {name!r}: {type(error).__name__}: {error}".encode())
            return
    if "numpy" in sys.modules:
        importlib.import_module("numpy.random").seed(SEED)  # numpy imports it when first used, which takes 15 ms
    gc.collect()
    gc.freeze()  # sessions share these objects' pages; a collection would copy them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    socket.send_fds(channel, [b"ready"], [proc])
    os.close(proc)
    _serve(channel, settings)


def _serve(channel: socket.socket, settings: dict[str, Any]) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 16, 2)
        if not message:
            return
        try:
            child = os.fork()
        except OSError as error:  # no memory or processes left: that is this session's end, not everyone's
            with socket.socket(fileno=os.dup(descriptors[0])) as refused:
                refused.send(json.dumps({"failed": f"fork: {error}"}).encode())
        else:
            if child == 0:
                channel.close()
                _session(descriptors[0], descriptors[1], settings)
        for descriptor in descriptors:
            os.close(descriptor)


def _session(channel_fd: int, output: int, settings: dict[str, Any]) -> NoReturn:
    os.dup2(channel_fd, CHANNEL_FD, inheritable=False)
    os.dup2(output, OUTPUT_FD, inheritable=False)
    os.closerange(3, OUTPUT_FD)
    os.closerange(CHANNEL_FD + 1, 64)
    channel = socket.socket(fileno=CHANNEL_FD)
    try:
        _isolate(settings)
        repl = Repl(OUTPUT_FD)
        channel.send(b'{"class": "ready"}')
    except OSError as error:
        channel.send(json.dumps({"failed": str(error)}).encode())
        os._exit(1)
    _work(channel, repl, isolated=settings["isolation"] != "none")


def _isolate(settings: dict[str, Any]) -> None:
    address_space = settings["memory_mb"] * isolate.MIB + isolate.own_address_space()
    isolated = settings["isolation"] != "none"
    if isolated:
        isolate.enter_session(settings["scratch_mb"], settings["readable"])
    else:
        isolate.die_with_parent()
    os.setsid()
    isolate.set_limits(
        address_space, settings["scratch_mb"] * isolate.MIB, settings["max_processes"] if isolated else None
    )
    if isolated:
        isolate.drop_capabilities()
        seccomp.install()
    os.chdir(settings["scratch"])
    os.environ.clear()
    os.environ.update(settings["environment"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.argv[:] = [""]
    sys.set_int_max_str_digits(0)  # maths prints long integers, and time is limited anyway
    random.seed(SEED)  # a block run again gives the same; forking gave it another state


def _work(channel: socket.socket, repl: Repl, isolated: bool) -> NoReturn:
    with suppress(OSError):  # the block closed the channel
        while message := channel.recv(MAX_MESSAGE):
            ended = repl.run(message[1:].decode(errors="replace"))
            if isolated:
                _end_other_processes()
            channel.send(json.dumps({"class": ended}).encode())
    os._exit(0)


def _end_other_processes() -> None:
    """End the processes that a block started. As number 1 of the namespace we reach all of them and nothing else."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        return


if __name__ == "__main__":
    main()
