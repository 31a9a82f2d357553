"""One stateful Python session, as the interactive interpreter runs blocks: names stay, the value of a last expression
is shown. The code is parsed, never rewritten as text.

    repl = Repl()
    repl.run("x = 2")        -> "ok"
    repl.run("x + 1")        -> "ok", and "3" on standard output
    repl.run("1 / 0")        -> "error", and a traceback of the block's own lines
"""

import ast
import errno
import io
import linecache
import os
import sys
import traceback
import types
from contextlib import suppress

OK, ERROR, SYNTAX_ERROR, MEMORY, PROCESS_LIMIT = "ok", "error", "syntax_error", "memory", "process_limit"
CLASSES = (OK, ERROR, SYNTAX_ERROR, MEMORY, PROCESS_LIMIT)
BLOCK = "<block "  # begins the file name of every block


class Repl:
    """Runs blocks in one namespace, which is the module `__main__`.

    Every block's standard output and error go to `output`, a file descriptor, in the order they were written.
    """

    def __init__(self, output: int) -> None:
        self.output = output
        self.stream = _stream()
        self.pid = os.getpid()
        self.blocks = 0
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module

    def run(self, code: str) -> str:
        """Execute one block and say how it ended; a process that the block forked ends here."""
        self._redirect()
        try:
            ended = self._execute(code)
        except BaseException as error:  # noqa: BLE001  whatever the block raises, exit() too
            ended = _class_of(error)
            forked = os.getpid() != self.pid
            if ended != OK and not (forked and ended == PROCESS_LIMIT):  # a fork bomb says it once, not per process
                _show(error, self.stream)
        try:
            self.stream.flush()
        except (OSError, ValueError):  # the block closed it; what it holds must not appear in the next block's output
            self.stream.buffer.raw.close()  # type: ignore[attr-defined]
        if os.getpid() != self.pid:
            os._exit(0)
        return ended

    def _redirect(self) -> None:
        """One stream for both, so that their order is kept. It stays the same: a logger of an earlier block has it."""
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        if self.stream.closed:
            self.stream = _stream()
        sys.stdout = sys.stderr = self.stream

    def _execute(self, code: str) -> str:
        self.blocks += 1
        name = f"{BLOCK}{self.blocks}>"
        linecache.cache[name] = (len(code), None, [line + "\n" for line in code.splitlines()], name)
        try:
            body, last = _compile(code, name)
        except (SyntaxError, ValueError, OverflowError, RecursionError) as error:
            print("".join(traceback.format_exception_only(error)), end="")
            return SYNTAX_ERROR
        exec(body, self.module.__dict__)  # noqa: S102  this is what the sandbox is for
        if last is not None:
            value = eval(last, self.module.__dict__)  # noqa: S307
            if value is not None:
                print(repr(value))
        return OK


def _stream() -> io.TextIOWrapper:
    binary = open(1, "wb", closefd=False)  # noqa: SIM115  open as long as the session is
    return io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _compile(code: str, name: str) -> tuple[types.CodeType, types.CodeType | None]:
    """The statements, and the last one on its own if it is an expression."""
    tree = ast.parse(code, name)
    last: types.CodeType | None = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        expression = tree.body.pop()
        assert isinstance(expression, ast.Expr), "checked in the line above"
        last = compile(ast.Expression(expression.value), name, "eval")
    return compile(tree, name, "exec"), last


def _class_of(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return OK if error.code in (None, 0) else ERROR
    if isinstance(error, MemoryError):
        return MEMORY
    no_process = isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN
    no_thread = isinstance(error, RuntimeError) and "can't start new thread" in str(error)
    return PROCESS_LIMIT if no_process or no_thread else ERROR


def _show(error: BaseException, stream: io.TextIOWrapper) -> None:
    """The traceback without our own frames and those of libraries; the error's name if even that fails."""
    try:
        report = traceback.TracebackException.from_exception(error)
        _keep_own_frames(report)
        text = "".join(report.format())
    except BaseException:  # noqa: BLE001  an exception of the block's own making, or no memory left
        text = f"{type(error).__name__}\n"
    with suppress(OSError, ValueError):
        stream.write(text)


def _keep_own_frames(report: traceback.TracebackException) -> None:
    pending: list[traceback.TracebackException | None] = [report]
    while pending:
        one = pending.pop()
        if one is not None:
            own = [frame for frame in one.stack if frame.filename.startswith(BLOCK)]
            one.stack = traceback.StackSummary.from_list(own)
            pending += [one.__cause__, one.__context__, *(one.exceptions or [])]
