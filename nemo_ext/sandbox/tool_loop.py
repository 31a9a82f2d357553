"""Generation that runs code: one request becomes one trace of text written by the model and by Python in turn.

    async with ToolLoop(urls, ToolLoopConfig(), token) as loop:
        completion = await loop(request, send)     # from many tasks at once

A segment of the model ends at the end of a code block; the block runs in the trace's own session; its result is
appended; the next segment continues the text. A finished trace sends nothing more. Segment k asks with seed + k, so
that the segments of a trace do not draw the same random numbers.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import aiohttp

from nemo_ext.grading.extract import boxed
from nemo_ext.sandbox import access
from nemo_ext.sandbox.config import ToolLoopConfig
from nemo_ext.sandbox.formats import FORMATS, Block, Format, cut, find_block, is_open, with_output
from nemo_ext.sandbox.remote import Executed, RemoteSession
from nemo_ext.serving.client.requests import Completion, Request

Send = Callable[[Request], Awaitable[Completion]]

ANSWER, STOP, LENGTH = "answer", "stop", "length"
MAX_EXECUTIONS, ERROR, NOT_EXECUTED = "max_executions", "error", "not_executed"
"""Why a trace ended: it boxed an answer; it stopped without one; a token limit; one block too many; a block failed and
on_error is stop; the model asked for the result of a block that is not there."""


@dataclass
class _Trace:
    prompt: str
    text: str = ""
    ended: str = ""
    executions: int = 0
    results: int = 0
    """In `text`."""
    errors: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    used_tokens: int = 0
    """An upper bound: counted exactly up to the last segment, and a token per byte of the last result."""
    told_to_stop: bool = False
    restarts: int = 0
    attempts: int = 0
    started: float = field(default_factory=time.monotonic)

    def count(self, segment: Completion, first: bool) -> None:
        assert segment.num_prompt_tokens is not None, (
            "the client refuses servers that do not count, where there is a loop"
        )
        assert segment.num_generated_tokens is not None, "as above"
        if first:
            self.prompt_tokens = segment.num_prompt_tokens
        self.generated_tokens += segment.num_generated_tokens
        self.used_tokens = segment.num_prompt_tokens - self.prompt_tokens + segment.num_generated_tokens
        self.attempts = max(self.attempts, segment.attempts)

    def restart(self) -> None:
        self.text, self.used_tokens, self.results = "", 0, 0
        self.restarts += 1

    def append_result(self, form: Format, result: str) -> None:
        before = len(self.text.encode())
        self.text = with_output(form, self.text, result)
        self.results += 1
        self.used_tokens += max(0, len(self.text.encode()) - before)  # the next segment's prompt will say how many

    @property
    def record(self) -> dict[str, Any]:
        done = {"executions": self.executions, "errors": dict(self.errors), "ended": self.ended}
        results = {"results": self.results} if self.results != self.executions else {}
        return done | results | ({"restarts": self.restarts} if self.restarts else {})


class ToolLoop:
    """One for all requests of a run; made outside the event loop, entered inside."""

    def __init__(self, urls: list[str], config: ToolLoopConfig, token: str) -> None:
        """`token`: of all of them. Raises ValueError when there is no sandbox."""
        if not urls:
            raise ValueError("no sandbox: a stage whose prompts run code needs the address of one")
        self.urls = urls
        self.config = config
        self._token = token
        self.format = FORMATS[config.format]
        self._http: aiohttp.ClientSession | None = None
        self._deleting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "ToolLoop":
        connector = aiohttp.TCPConnector(limit=0)
        self._http = aiohttp.ClientSession(
            connector=connector,
            headers=access.header(self._token),
            trust_env=False,  # never through a proxy
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._deleting:
            await asyncio.wait(self._deleting)
        assert self._http is not None, "set in __aenter__"
        await self._http.close()

    async def __call__(self, request: Request, send: Send) -> Completion:
        """One whole trace: its text with the results, and `trace`: {"executions", "errors" by class, "ended"}; also
        "results", those that the text shows, where they are not as many; "restarts", where there were any.

        Raises:
            ValueError: the request is for messages, or for several samples.
            SandboxDown: no sandbox ran a block for patience_s.
        """
        if not isinstance(request.prompt, str):
            raise ValueError("a tool loop continues text: render the chat template first and send the prompt as text")
        if request.more_keys:
            raise ValueError("a tool loop runs one sample per request, as each goes its own way after its first block")
        assert self._http is not None, "entered"
        session = RemoteSession(self._http, self.urls, self.config.patience_s)
        try:
            return await self._run(request, request.prompt, send, session)
        finally:  # in a task of its own, which a cancelled trace does not take with it
            task = asyncio.create_task(session.delete())
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    async def _run(self, request: Request, prompt: str, send: Send, session: RemoteSession) -> Completion:
        trace = _Trace(prompt)
        number = 0
        while True:
            segment = await send(self._segment(request, trace, number))
            if segment.error is not None:
                if number and segment.error_kind == "prompt_too_long":
                    trace.ended = LENGTH
                    break
                return replace(segment, key=request.key, trace=trace.record)
            trace.count(segment, first=number == 0)
            last = segment
            await self._advance(request, trace, segment, session)
            if trace.ended:
                break
            number += 1
        return replace(
            last,
            key=request.key,
            text=trace.text,
            finish_reason="length" if trace.ended == LENGTH else "stop",
            num_prompt_tokens=trace.prompt_tokens,
            num_generated_tokens=trace.generated_tokens,
            seconds=time.monotonic() - trace.started,
            attempts=trace.attempts,
            seed=request.sampling.seed,
            trace=trace.record,
        )

    def _segment(self, request: Request, trace: _Trace, number: int) -> Request:
        sampling = request.sampling
        stop = tuple(dict.fromkeys((*sampling.stop, *self.format.stop)))
        seed = None if sampling.seed is None else sampling.seed + number
        tokens = min(sampling.max_tokens, self._total_tokens(request) - trace.used_tokens)
        return replace(
            request,
            prompt=trace.prompt + trace.text,
            sampling=replace(sampling, stop=stop, seed=seed, max_tokens=tokens),
        )

    def _total_tokens(self, request: Request) -> int:
        return self.config.max_total_tokens or request.sampling.max_tokens

    async def _advance(self, request: Request, trace: _Trace, segment: Completion, session: RemoteSession) -> None:
        """Add a segment and, if it ends with a block, the block's result; set `ended` when there is no more to come."""
        form, config = self.format, self.config
        if segment.finish_reason == "length":
            trace.text += segment.text
            trace.ended = LENGTH
            return
        text, at_block = _restore_stop(form, segment)
        block = find_block(form, text) if at_block else None
        if block is None:
            trace.text += text
            trace.ended = NOT_EXECUTED if at_block else _how_ended(form, text)
        elif config.stop_at_answer and boxed(form.block.sub("", text[: block.start])) is not None:
            trace.text += text[: block.start].rstrip()
            trace.ended = ANSWER
        else:
            trace.text += text
            await self._result(trace, block, session)
            if not trace.ended and trace.used_tokens >= self._total_tokens(request):
                trace.ended = LENGTH

    async def _result(self, trace: _Trace, block: Block, session: RemoteSession) -> None:
        config = self.config
        if trace.executions >= config.max_executions:
            if config.max_executions_text is None or trace.told_to_stop:
                trace.ended = MAX_EXECUTIONS
            else:
                trace.told_to_stop = True
                trace.append_result(self.format, config.max_executions_text)
            return
        executed = await session.execute(block.code, config.timeout_s)
        trace.executions += 1
        trace.append_result(self.format, self._shown(executed))
        if executed.ended != "ok":
            trace.errors[executed.ended] += 1
            if config.on_error == "stop":
                trace.ended = ERROR
            elif config.on_error == "restart" and trace.executions < config.max_executions:
                trace.restart()
                await session.renew()

    def _shown(self, executed: Executed) -> str:
        config = self.config
        output = cut(executed.output.rstrip("\n"), config.max_output_chars, config.cut, config.cut_marker)
        return "\n".join(part for part in (output, executed.message) if part)


def _restore_stop(form: Format, segment: Completion) -> tuple[str, bool]:
    """The segment with the end of its block, which servers trim; and whether it stopped for a block.

    A server that names the stop string is believed. From one that does not, an open block means it was closed.
    """
    text, reason = segment.text, segment.stop_reason
    if isinstance(reason, str) and reason not in form.stop:
        return text, False
    for stop in form.stop:
        kept = text.endswith(stop)
        if form.stop_ends_block:
            if kept or reason == stop or (reason is None and is_open(form, text)):
                return (text if kept else text + form.closing), True
        elif kept or reason == stop or find_block(form, text) is not None:
            text = text.removesuffix(stop)
            return (f"{text.rstrip()}\n{form.closing}" if is_open(form, text) else text), True
    return text, False


def _how_ended(form: Format, text: str) -> str:
    return STOP if boxed(form.block.sub("", text)) is None else ANSWER
