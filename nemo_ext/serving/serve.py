"""Run one server and publish its address.

    python -m nemo_ext.serving.serve run/teacher/config.yaml --address-file run/teacher/server-0.json

The YAML's `server` mapping says which server, its `model` mapping what it serves. `embedded` runs in this process; the
others are children, which get our signals, whose exit code we return, and which die with us, their workers too
(group_guard.py). A server over several nodes is a job step each of whose tasks runs this same command.

Beside server-0.json: server-0.served.json (kind, model, version; kept), server-0.metrics.json (its load, every 30 s),
server-0.options.yaml and server-0.ports.json (what its processes read when they start).
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from omegaconf import OmegaConf

from nemo_ext.machine import parent, ports
from nemo_ext.models.hub_folder import check_rope_spelling
from nemo_ext.models.model import Model
from nemo_ext.models.model_files import folder_of
from nemo_ext.records.files import write_json_atomic
from nemo_ext.records.image_versions import installed
from nemo_ext.serving.address import served_path
from nemo_ext.serving.launch import server_metrics, server_process
from nemo_ext.serving.launch.server_process import Serving
from nemo_ext.serving.launch.tasks import this_step
from nemo_ext.serving.server import GpuServer, Server, load, module_of

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


@contextmanager
def published(path: Path) -> Iterator[None]:
    """Remove the address file before, so that nobody reads an old one, and after."""
    path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def announce(server: Server, address_file: Path, host: str, serving: Serving) -> None:
    """Write the address, and from now on a line about the load every so often."""
    public, about = ports.public(host), {"kind": server.kind, "model": serving.model, "version": serving.version}
    write_json_atomic(served_path(address_file), about)
    url = f"http://{public}:{serving.port}"
    write_json_atomic(address_file, {"url": url, "host": public, "port": serving.port, **about, "pid": os.getpid()})
    log.info("serving %s on %s, %s %s", serving.model, url, server.kind, serving.version or "of unknown version")
    module = module_of(server.kind)
    if server.metrics_interval_s > 0 and module.METRICS:
        path = address_file.with_suffix(".metrics.json")
        get = lambda: server_process.fetch(host, serving.port, module.METRICS)  # noqa: E731
        server_metrics.watch(get, module.read_metrics, server.metrics_interval_s, path)


def serve(server: Server, model: Model, address_file: Path, host: str, port: int) -> int:
    """Run until the server ends; returns the exit code. `port` 0 takes any; one in use is replaced by another.

    Raises:
        ValueError: nothing is to be started, or the image's transformers would read the model's config.json wrongly.
    """
    module = module_of(server.kind)
    if hasattr(module, "endpoints"):
        raise ValueError(f"server.kind={server.kind!r} is run by somebody else; there is nothing to start")
    if isinstance(server, GpuServer):
        if (folder := folder_of(model)) is not None:
            check_rope_spelling(folder, installed("transformers"))
        step = this_step(server.tasks)
        if step.task > 0:
            return server_process.join(module, server, model, host, address_file, step)
        with published(address_file):
            tell = partial(announce, server, address_file, host)
            return server_process.run(module, server, model, host, port, address_file, step, tell)
    parent.exit_with_parent()
    listener = ports.bind(host, port)
    here = Serving(listener.getsockname()[1], model.name, module.version())
    with published(address_file):
        module.run(server, model, listener, partial(announce, server, address_file, host, here))
    return 0


def use_gpus(positions: str) -> None:
    """Hide all GPUs that this process sees but those at `positions` ("0,1"): replicas share a node."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = positions.split(",")
    if visible:
        devices = visible.split(",")
        if max(map(int, chosen)) >= len(devices):
            raise ValueError(
                f"this replica uses GPUs {positions} of the node, and it may use {len(devices)} ({visible})"
            )
        chosen = [devices[int(position)] for position in chosen]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a stage's config.yaml")
    parser.add_argument("--address-file", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 when clients are on other nodes")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--replica", type=int, default=0, help="only to tell replicas apart in logs")
    parser.add_argument("--gpus", default="", help="which of this node's GPUs, such as 2,3; default: all")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s server-{args.replica} %(levelname)s %(message)s")
    try:
        if args.gpus:
            use_gpus(args.gpus)
        server, model = read_stage(args.config)
        code = serve(server, model, args.address_file, args.host, args.port)
    except ValueError as error:
        write_json_atomic(args.address_file, {"error": str(error)})
        raise SystemExit(str(error)) from error
    except TimeoutError as error:
        raise SystemExit(str(error)) from error
    sys.exit(code)


if __name__ == "__main__":
    main()
