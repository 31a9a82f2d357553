"""The embedded server's process: load, listen, serve, drain on SIGTERM."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import torch
import uvicorn
import uvloop
from tokenizers import Tokenizer

from nemo_ext.machine.web_server import web_server
from nemo_ext.models.chat_template import ChatTemplate
from nemo_ext.models.hub_folder import end_token_ids
from nemo_ext.models.model import Model
from nemo_ext.models.shape import ModelShape
from nemo_ext.serving.embedded.app import Api
from nemo_ext.serving.embedded.config import Config
from nemo_ext.serving.embedded.engine import Engine
from nemo_ext.serving.embedded.forward.checkpoint import read_config, read_weights
from nemo_ext.serving.embedded.forward.model import Llama

log = logging.getLogger(__name__)

POLL_S = 0.02


def load_engine(cfg: Config, model: Model) -> Engine:
    """Raises ValueError when the folder is not a checkpoint this engine runs."""
    folder = Path(model.hf_path)
    config = read_config(folder)
    lengths = (cfg.context_length, model.context_length, config.max_positions)
    llama = _load(cfg, folder, config, min(length for length in lengths if length is not None))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Engine(llama, tokenizer, end_token_ids(folder), cfg.max_batch_size, cfg.max_prefill)


def _load(cfg: Config, folder: Path, config: ModelShape, context_length: int) -> Llama:
    """Load the model in cfg.compute_dtype. Where no way of batching keeps a sequence's bits on this CPU, in float64 if
    one does there; else one sequence after another."""
    for dtype in dict.fromkeys((cfg.compute_dtype, "float64")):
        llama = Llama(config, read_weights(folder, getattr(torch, dtype)), cfg.max_batch_size, context_length)
        if not llama.way.alone:
            return llama
        log.warning("on this CPU no way of batching keeps the bits of %s results", dtype)
    log.warning("so each sequence is computed by itself, which is slower")
    return Llama(config, read_weights(folder, getattr(torch, cfg.compute_dtype)), cfg.max_batch_size, context_length)


def run(cfg: Config, model: Model, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT, then finish what was accepted; a second one stops at once."""
    torch.set_num_threads(cfg.threads)
    template = ChatTemplate.of(model)
    uvloop.run(_serve(cfg, model, template, listener, on_ready))


async def _serve(
    cfg: Config, model: Model, template: ChatTemplate, listener: socket.socket, on_ready: Callable[[], None]
) -> None:
    api = Api(load_engine(cfg, model), template, model.name, cfg.max_queue)
    web = web_server(api.application(), grace_s=5)

    def stop() -> None:
        if api.draining:
            web.should_exit = web.force_exit = True
        log.info("draining: %d requests in flight", api.in_flight)
        api.draining = True

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    engine = asyncio.create_task(api.engine.run())
    supervisor = asyncio.create_task(_supervise(api, engine, web, on_ready))
    await web.serve(sockets=[listener])
    engine.cancel()
    await supervisor


async def _supervise(
    api: Api, engine: "asyncio.Task[None]", web: uvicorn.Server, on_ready: Callable[[], None]
) -> None:
    """Say when the server listens, and stop it once it has drained or its engine has died, with that error."""
    try:
        while not (web.started or web.should_exit):
            await asyncio.sleep(POLL_S)
        if web.started:
            on_ready()
        while not (web.should_exit or engine.done() or (api.draining and api.in_flight == 0)):
            await asyncio.sleep(POLL_S)
        if engine.done():
            engine.result()
    finally:
        web.should_exit = True
