"""The limits of the sandbox and of the tool loop. Light imports only: stages put these in their Config."""

from dataclasses import dataclass, field

ISOLATIONS = ("bubblewrap", "namespaces", "none")  # strongest first
FORMATS = ("llm_code", "fenced")
ON_ERROR = ("stop", "go_on", "restart")


@dataclass(kw_only=True)
class SandboxConfig:
    """One service. Its sessions together may use max_sessions * (memory_mb + 2 * scratch_mb)."""

    isolation: str = "auto"
    """auto: the first of bubblewrap, namespaces that works here; or one of them by name."""
    allow_unisolated: bool = False
    """Start even where neither works. The code then runs with this process's rights: files, network, everything."""
    max_sessions: int = 256
    """Sessions alive at once; a request for one more is answered 429. A trace holds one from its first block on."""
    max_parallel: int | None = None
    """Blocks that run at once. Others wait, uncounted, so that a time limit means the same on a busy machine.
    None: as many as there are cores."""
    max_timeout_s: float = 60.0
    """Wall-clock time of a block when the request names none, and the most it may name; also of all blocks together that
    are run again to restore a session."""
    memory_mb: int = 2048
    """Memory of a session beyond the preloaded modules: address space of each process, resident memory of all of them."""
    scratch_mb: int = 64
    """Size of /tmp, the only folder a session may write to besides /dev/shm, which has the same limit."""
    max_processes: int = 16
    """Processes and threads of a session, its interpreter included."""
    max_output_kb: int = 4096
    """A block that prints more is stopped."""
    max_code_kb: int = 64
    idle_s: float = 1800.0
    """A session that nobody used for this long ends."""
    preload: list[str] = field(default_factory=lambda: ["numpy", "sympy"])
    """Imported once; sessions are forked from that process, so importing these costs a block nothing."""
    readable: list[str] = field(default_factory=list)
    """Folders that sessions may read besides the system's libraries and this Python's packages."""

    def __post_init__(self) -> None:
        if self.isolation not in ("auto", *ISOLATIONS[:-1]):
            raise ValueError(f"sandbox.isolation={self.isolation!r}: choose auto, bubblewrap or namespaces")
        limits = ("max_sessions", "max_timeout_s", "memory_mb", "scratch_mb", "max_processes", "max_output_kb")
        for name in (*limits, "max_code_kb", "idle_s", "max_parallel"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"sandbox.{name}={value}: it must be more than 0")
        if self.max_code_kb > 128:
            raise ValueError(f"sandbox.max_code_kb={self.max_code_kb}: at most 128, what one socket message holds")


@dataclass(kw_only=True)
class ToolLoopConfig:
    """How a trace alternates between the model and Python. The defaults are OpenMathInstruct-1's for generation;
    its evaluation used max_executions=6, on_error=go_on."""

    format: str = "llm_code"
    """llm_code (OpenMathInstruct-1) or fenced (ToRA, Numina)."""
    max_executions: int = 3
    """Blocks executed in a trace."""
    max_executions_text: str | None = None
    """What the model is shown instead of a result for one block too many, after which it may write once more.
    None: the trace ends there."""
    on_error: str = "stop"
    """What a block that did not run to its end does to its trace. stop: ends it, the error stays in the text. go_on: the
    model reads the error and writes on. restart: the trace begins anew, in a new session and with other random numbers;
    blocks that were executed stay counted."""
    stop_at_answer: bool = True
    r"""Do not execute a block that the model opens after it has boxed an answer: the trace ends before that block."""
    timeout_s: float = 10.0
    """Wall time of one block."""
    max_output_chars: int = 1000
    """Length of one result: OpenMathInstruct-1 1000, ToRA 400, Numina 200."""
    cut: str = "head"
    """The part of a longer result that is kept: head, or head_tail (half each, as ToRA does)."""
    cut_marker: str = "<output cut>"
    """Stands for the rest. Numina: " ... (output truncated)"."""
    max_total_tokens: int | None = None
    """Length of a trace after its prompt, tool output included. None: the sampling's max_tokens, which also bounds each
    segment between two blocks."""
    patience_s: float = 300.0
    """How long a block may wait for a sandbox that is down or full before the run stops."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format={self.format!r}: choose one of {', '.join(FORMATS)}")
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error={self.on_error!r}: choose one of {', '.join(ON_ERROR)}")
        if self.cut not in ("head", "head_tail"):
            raise ValueError(f"cut={self.cut!r}: choose head or head_tail")
        for name in ("timeout_s", "max_output_chars", "max_total_tokens", "patience_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: it must be more than 0")
        if self.max_executions < 0:
            raise ValueError(f"max_executions={self.max_executions}: it must be 0 or more")
