"""Ports to listen on, and names under which others reach them."""

import errno
import logging
import os
import random
import socket

log = logging.getLogger(__name__)

RANGE = (20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections (32768 and up): a server that loads for half an hour before it
binds must find its port still free. Where none of TRIES is, any will do."""
TRIES = 50
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104


def bind(host: str, port: int, reuse: bool = True) -> socket.socket:
    """A socket bound to `port`, or to a free one if that is 0 or in use. `reuse`: take one whose connections linger."""
    if port:
        try:
            return _bound(host, port, reuse)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            log.warning("port %d is in use; taking another", port)
    for _ in range(TRIES):
        try:
            return _bound(host, random.randrange(*RANGE), reuse)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _bound(host, 0, reuse)


def _bound(host: str, port: int, reuse: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def free_ports(host: str, port: int, count: int) -> list[int]:
    """`port`, or another if that is 0 or in use, and `count - 1` more. The connections of a server that crashed there
    a moment ago may linger: the servers that are started here take such a port."""
    probes = [bind(host, port, reuse=True), *(bind(host, 0, reuse=False) for _ in range(count - 1))]
    try:
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def in_use(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((local(host), port)) == 0


def local(host: str) -> str:
    """Where this node reaches a server that listens on `host`."""
    return "127.0.0.1" if host in EVERYWHERE else host


def public(host: str) -> str:
    """Where other nodes reach it: this node's name, as Slurm or the machine has it, if that resolves; else its address."""
    if host not in EVERYWHERE:
        return host
    for name in (os.environ.get("SLURMD_NODENAME"), socket.gethostname(), socket.getfqdn()):
        if name and _resolves(name):
            return name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; only asks which of our addresses leads outside
        except OSError:  # none does
            return socket.gethostname()
        return str(probe.getsockname()[0])


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None, socket.AF_INET)
    except OSError:
        return False
    return True
