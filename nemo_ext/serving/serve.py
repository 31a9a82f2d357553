"""Run one server and publish its address.

    python -m nemo_ext.serving.serve run/teacher/config.yaml --address-file run/teacher/server-0.json

The YAML's `server` mapping says which server, its `model` mapping what it serves. `embedded` runs in this process; the
others are children, which get our signals, whose exit code we return, and which die with us.
"""

import argparse
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from nemo_ext.files import write_json_atomic
from nemo_ext.model import Model
from nemo_ext.serving import child, parent
from nemo_ext.serving.server import Server, load, module_of

log = logging.getLogger(__name__)


def read_stage(path: Path) -> tuple[Server, Model]:
    """The `server` and `model` of a stage's config.yaml.

    Raises:
        ValueError: either is missing or wrong.
    """
    config = OmegaConf.load(path)
    for key in ("server", "model"):
        if key not in config:
            raise ValueError(f"{path}: no `{key}` mapping; a stage with a server has both `server` and `model`")
    model = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Model), config.model))
    assert isinstance(model, Model), "merged into Model"
    return load(OmegaConf.to_container(config.server, resolve=True)), model  # type: ignore[arg-type]


def public_host(bind_host: str) -> str:
    """The name clients use: a server on all interfaces is reached under this node's name."""
    return socket.gethostname() if bind_host in ("0.0.0.0", "::") else bind_host  # noqa: S104


@contextmanager
def published(path: Path) -> Iterator[None]:
    """Remove the address file before, so that nobody reads an old one, and after."""
    path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def publish(path: Path, host: str, port: int, model_id: str) -> None:
    write_json_atomic(path, {"url": f"http://{host}:{port}", "model": model_id, "pid": os.getpid()})
    log.info("serving %s on http://%s:%d", model_id, host, port)


def serve(server: Server, model: Model, address_file: Path, host: str, port: int) -> int:
    """Run until the server ends; returns the exit code. `port` 0 takes any; one in use is replaced by another."""
    module = module_of(server.kind)
    if hasattr(module, "endpoints"):
        raise ValueError(f"server.kind={server.kind!r} is run by somebody else; there is nothing to start")

    def announce(bound: int, model_id: str) -> None:
        publish(address_file, public_host(host), bound, model_id)

    with published(address_file):
        if hasattr(module, "run"):
            parent.exit_with_parent()
            listener = child.bind(host, port)
            bound = listener.getsockname()[1]
            module.run(server, model, listener, lambda: announce(bound, model.name))
            return 0
        return child.run(module, server, model, host, port, address_file, announce)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a stage's config.yaml")
    parser.add_argument("--address-file", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 when clients are on other nodes")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--replica", type=int, default=0, help="only to tell replicas apart in logs")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s server-{args.replica} %(levelname)s %(message)s")
    try:
        server, model = read_stage(args.config)
        code = serve(server, model, args.address_file, args.host, args.port)
    except (ValueError, TimeoutError) as error:
        raise SystemExit(str(error)) from error
    sys.exit(code)


if __name__ == "__main__":
    main()
