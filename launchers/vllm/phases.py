"""What an engine is doing while it starts, read from the lines of vLLM's log. Pure."""

from __future__ import annotations

import re

from roundhouse.launchers.base import Progress

#: In the order in which a start goes through them.
PHASES = ("starting", "importing", "loading weights", "compiling", "profiling", "warming up")

_PERCENT = re.compile(r"Loading .*\b(\d{1,3})% Completed")
#: "(EngineCore pid=17) INFO 11-23 22:10:05 [default_loader.py:501] Loading weights took ...": the text is what counts,
#: for the names of vLLM's files would pass for phases.
_INFO = re.compile(r"\bINFO [\d-]+ [\d:]+ \[[\w./]+:\d+\] (.*)")

#: What vLLM 0.32 says, for the CPU and with either runner of models for CUDA; the first pattern that a text has counts.
_SAYS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"non-default args|Resolved architecture|Initializing a V1 LLM engine"), "importing"),
    (
        re.compile(
            r"Starting to load model|Initializing model took|Checkpoint size:|Loading weights took|Model loading took"
        ),
        "loading weights",
    ),
    (
        re.compile(r"Starting torch\.compile|Dynamo bytecode|Compiling a graph|Directly load |torch\.compile took"),
        "compiling",
    ),
    (re.compile(r"Initial profiling|KV cache size|[Aa]vailable KV cache memory|[Mm]emory profiling"), "profiling"),
    (re.compile(r"JIT kernel warmup|Graph capturing finished|init engine .* took|Starting vLLM server"), "warming up"),
)


def phase_of(line: str) -> Progress | None:
    """The phase that a log line tells of, with a percentage while weights load; ``None`` for other lines."""
    if percent := _PERCENT.search(line):
        return Progress("loading weights", min(100.0, float(percent[1])))
    if line.startswith("Capturing CUDA graphs"):
        return Progress("warming up")
    info = _INFO.search(line)
    if info is None:
        return None
    return next((Progress(phase) for pattern, phase in _SAYS if pattern.search(info[1])), None)


def further(before: Progress, line: str) -> Progress | None:
    """How far a start has come by ``line`` of its log; ``None`` if no further than ``before``."""
    after = phase_of(line)
    return after if after is not None and goes_on(before, after) else None


def goes_on(before: Progress, after: Progress) -> bool:
    """Whether ``after`` is further than ``before``: what vLLM says late of an earlier phase is not progress."""
    steps = PHASES.index(after.phase) - PHASES.index(before.phase)
    return steps > 0 or (steps == 0 and (after.percent or 0.0) > (before.percent or 0.0))
