"""The HTTP side: /v1/completions, /v1/chat/completions, /v1/models, /health and /metrics."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nemo_ext.models.chat_template import ChatTemplate
from nemo_ext.serving.embedded.engine import Engine, EngineError, choice_key
from nemo_ext.serving.embedded.metrics import prometheus_text
from nemo_ext.serving.embedded.replies import Replies
from nemo_ext.serving.embedded.requests import BadRequest, GenerationRequest, parse
from nemo_ext.serving.embedded.sequence import Delta, Sequence
from nemo_ext.serving.embedded.stream_buffer import Held, StreamBuffer
from nemo_ext.serving.embedded.text import TextStream

log = logging.getLogger(__name__)

MAX_BODY = 4 << 20  # bytes: to tokenise as much takes seconds, in which nothing else is served


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _error(status: int, message: str) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return _json({"error": {"message": message, "type": kind, "code": status}}, status, headers)


class Api:
    """`draining`: refuse new work with 503; `in_flight`: requests not answered yet."""

    def __init__(self, engine: Engine, template: ChatTemplate, model: str, max_queue: int) -> None:
        self.engine = engine
        self.template = template
        self.model = model
        self.max_queue = max_queue
        self.held = Held()
        self.draining = False
        self.in_flight = 0
        self.replies_by_status: Counter[int] = Counter()

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/chat/completions", self.chat_completions, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/health", self.health),
                Route("/metrics", self.metrics),
            ]
        )

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def chat_completions(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def models(self, request: Request) -> Response:
        context = self.engine.model.context_length
        card = {"id": self.model, "object": "model", "owned_by": "local", "max_model_len": context}
        return _json({"object": "list", "data": [card]})

    async def health(self, request: Request) -> Response:
        return _error(503, "shutting down") if self.draining else _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        return Response(prometheus_text(self.engine, self.replies_by_status), media_type="text/plain; version=0.0.4")

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        self.in_flight += 1
        response: Response | None = None
        try:
            response = await self._respond(request, chat)
        except BadRequest as error:
            response = _error(error.status, str(error))
        except EngineError as error:
            response = _error(500, f"the engine failed this batch: {error}")
        finally:
            if not isinstance(response, StreamingResponse):
                self.in_flight -= 1  # a stream counts itself out when it ends
            self.replies_by_status[response.status_code if response else 500] += 1
        return response

    async def _respond(self, request: Request, chat: bool) -> Response:
        if self.draining:
            return _error(503, "shutting down; send this to another replica")
        parsed = self._parse(await _body(request), chat)
        count = len(parsed.prompts) * parsed.num_choices
        if len(self.engine.waiting) + count > self.max_queue:
            waiting = len(self.engine.waiting)
            return _error(429, f"{waiting} sequences are waiting and max_queue is {self.max_queue}; retry later")
        replies = Replies(parsed, self.model, self.engine.tokenizer)
        if parsed.stream:
            sequences: list[Sequence] = []
            buffer = StreamBuffer(self.held, lambda: _cancel(sequences))
            sequences += self._sequences(parsed, buffer)
            self.engine.submit(sequences)
            events = self._events(parsed, replies, sequences, buffer)
            return _EventStream(events, lambda: self._leave(sequences, buffer))
        sequences = self._sequences(parsed, None)
        self.engine.submit(sequences)
        if not await _finished_before_disconnect(request, sequences):
            return _error(499, "the client went away")
        return _json(replies.whole(sequences))

    def _parse(self, raw: bytes, chat: bool) -> GenerationRequest:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the body is not JSON: {error}") from error
        return parse(
            body,
            chat=chat,
            model=self.model,
            tokenizer=self.engine.tokenizer,
            template=self.template,
            context_length=self.engine.model.context_length,
            max_queue=self.max_queue,
        )

    def _sequences(self, parsed: GenerationRequest, buffer: StreamBuffer | None) -> list[Sequence]:
        loop = asyncio.get_running_loop()
        parameters, tokenizer = parsed.parameters, self.engine.tokenizer
        needs_stream = buffer is not None or bool(parameters.stop)
        return [
            Sequence(
                index=number * parsed.num_choices + choice,
                prompt=prompt,
                parameters=parameters,
                key=choice_key(parameters.seed, choice),
                text_stream=TextStream(tokenizer, parameters.stop) if needs_stream else None,
                listener=buffer.put if buffer is not None else None,
                done=loop.create_future(),
            )
            for number, prompt in enumerate(parsed.prompts)
            for choice in range(parsed.num_choices)
        ]

    async def _events(
        self, parsed: GenerationRequest, replies: Replies, sequences: list[Sequence], buffer: StreamBuffer
    ) -> AsyncIterator[bytes]:
        everything = asyncio.gather(*(sequence.done for sequence in sequences))
        try:
            for chunk in replies.first_chunks(sequences):
                yield _event(chunk)
            unfinished = len(sequences)
            while unfinished:
                delta = await _next_delta(buffer, everything)
                if delta is None:
                    yield _event({"error": {"message": "too much of this stream was waiting to be read", "code": 503}})
                    return
                unfinished -= delta.finish_reason is not None
                yield _event(replies.chunk(delta))
            if parsed.include_usage:
                yield _event(replies.usage_chunk(sequences))
            yield b"data: [DONE]\n\n"
        except EngineError as error:
            yield _event({"error": {"message": f"the engine failed this batch: {error}", "code": 500}})
        finally:
            everything.cancel()

    def _leave(self, sequences: list[Sequence], buffer: StreamBuffer) -> None:
        """A stream ended, by itself or because its client left."""
        buffer.close()
        self.in_flight -= 1
        _cancel(sequences)


class _EventStream(StreamingResponse):
    """Server-sent events; `on_close` runs however the response ends, even before its first event."""

    def __init__(self, events: AsyncIterator[bytes], on_close: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


async def _first_of(*futures: "asyncio.Future[Any]") -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _cancel(sequences: list[Sequence]) -> None:
    for sequence in sequences:
        sequence.done.cancel()


async def _next_delta(buffer: StreamBuffer, everything: "asyncio.Future[list[None]]") -> Delta | None:
    """The next piece of text, or the engine's error if a batch failed first; None: the client reads too slowly."""
    if buffer.overflown:
        return None
    if (held := buffer.take()) is not None:
        return held
    getter = asyncio.ensure_future(buffer.next())
    await _first_of(getter, everything)
    if getter.done():
        return getter.result()
    if not buffer.overflown and everything.exception() is not None:
        getter.cancel()
        await everything
    return await getter


async def _body(request: Request) -> bytes:
    """Raises BadRequest when it is longer than MAX_BODY."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY:
            raise BadRequest(f"the body has more than {MAX_BODY:,} bytes, which no request here needs", status=413)
        pieces.append(piece)
    return b"".join(pieces)


async def _finished_before_disconnect(request: Request, sequences: list[Sequence]) -> bool:
    """Wait for every sequence; False, with the sequences cancelled, if the client closed the connection first."""
    everything = asyncio.gather(*(sequence.done for sequence in sequences))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await _first_of(everything, gone)
        if not everything.done():
            return False
        await everything
        return True
    finally:
        gone.cancel()
        everything.cancel()
        _cancel(sequences)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
