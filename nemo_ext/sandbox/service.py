"""The sandbox as an HTTP service.

    python -m nemo_ext.sandbox.service run/answers/config.yaml --address-file run/answers/sandbox.json

The YAML's `sandbox` mapping is a SandboxConfig.

    Authorization: Bearer <what is in run/answers/sandbox.token, or in the variable that --token-env names>
    POST /execute {"session": "a", "code": "x = 2\\nx + 1", "timeout_s": 10, "history": []}
      -> {"class": "ok", "output": "3\\n", "message": "", "state": "new", "lost": false, "truncated": false,
          "seconds": 0.001}
    DELETE /sessions/a
    GET /health -> isolation, limits, sessions, executions by class; needs no token

A client that leaves before its reply ends its session.

class: ok, error (an exception), syntax_error, timeout, memory, output_limit, process_limit, died.
message: what the model should know beyond what was printed.
state: new; kept; restored (the session was gone and the blocks in `history` were run again); lost (gone, no history).
lost: this block ended the session.
"""

import argparse
import asyncio
import logging
import os
import resource
import signal
import socket
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import uvicorn
import uvloop
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_ext.machine import parent, ports
from nemo_ext.machine.web_server import web_server
from nemo_ext.records.files import write_json_atomic
from nemo_ext.sandbox import access
from nemo_ext.sandbox.app import Api
from nemo_ext.sandbox.config import SandboxConfig
from nemo_ext.sandbox.forks import ForkServer
from nemo_ext.sandbox.sessions import Sessions
from nemo_ext.serving.serve import published

log = logging.getLogger(__name__)

POLL_S = 0.02


def read_config(path: Path) -> SandboxConfig:
    """The `sandbox` mapping of a stage's config.yaml.

    Raises:
        ValueError: it is missing or wrong.
    """
    config = OmegaConf.load(path)
    if "sandbox" not in config:
        raise ValueError(f"{path}: no `sandbox` mapping; a stage that executes code has one (sandbox: {{}} will do)")
    try:
        sandbox = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SandboxConfig), config.sandbox))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: sandbox: {error}") from error
    assert isinstance(sandbox, SandboxConfig), "merged into SandboxConfig"
    return sandbox


async def serve(config: SandboxConfig, listener: socket.socket, address_file: Path, host: str, token: str) -> None:
    """Until SIGTERM or SIGINT. Raises ValueError when nothing here isolates."""
    forks = ForkServer(config)
    sessions = Sessions(config, forks)
    try:
        await forks.start()
        log.log(
            logging.WARNING if forks.isolation == "none" else logging.INFO,
            "isolation: %s; %d sessions, %d at once; %s",
            forks.isolation,
            config.max_sessions,
            sessions.parallel,
            asdict(config),
        )
        await _serve_http(Api(sessions, token), listener, address_file, host)
    finally:
        sessions.close()


async def _serve_http(api: Api, listener: socket.socket, address_file: Path, host: str) -> None:
    web = web_server(api.application(), grace_s=1)

    def stop() -> None:
        web.should_exit = True
        api.sessions.close()  # blocks that run end as `died`, so that their requests are answered

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    watch = asyncio.create_task(api.sessions.watch())
    port, isolation = listener.getsockname()[1], api.sessions.forks.isolation
    announce = asyncio.create_task(_announce(web, port, address_file, host, isolation))
    try:
        await web.serve(sockets=[listener])
    finally:
        for task in (watch, announce):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _announce(web: uvicorn.Server, port: int, address_file: Path, host: str, isolation: str) -> None:
    while not web.started:
        await asyncio.sleep(POLL_S)
    public = ports.public(host)
    address = {"url": f"http://{public}:{port}", "host": public, "port": port, "model": "sandbox", "kind": "sandbox"}
    write_json_atomic(address_file, {**address, "isolation": isolation, "pid": os.getpid()})
    log.info("listening on %s", address["url"])


def _allow_descriptors() -> None:
    """Allow as many as may be: a session takes three, and those in flight count against the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a stage's config.yaml")
    parser.add_argument("--address-file", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 when clients are on other nodes")
    parser.add_argument("--token-env", help="NAME of the variable that holds the token; default: a new one, in a file")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s sandbox %(levelname)s %(message)s")
    parent.exit_with_parent()
    _allow_descriptors()
    try:
        config = read_config(args.config)
        given = args.token_env and access.from_environment(args.token_env, "--token-env")
        with (
            nullcontext(given) if given else access.published(args.address_file) as token,
            published(args.address_file),
            ports.bind(args.host, args.port) as listener,
        ):
            uvloop.run(serve(config, listener, args.address_file, args.host, token))
    except ValueError as error:
        write_json_atomic(args.address_file, {"error": str(error)})
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
