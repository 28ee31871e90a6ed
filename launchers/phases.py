"""What an engine is doing while it starts, read from the lines of vLLM's log. Pure."""

from __future__ import annotations

import re

from roundhouse.launchers.base import Progress

_PERCENT = re.compile(r"(\d{1,3})% Completed")

#: In the order in which vLLM 0.32 writes them; the first pattern that a line has counts.
_PHASES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"non-default args|Resolved architecture|Initializing a V1 LLM engine"), "importing"),
    (
        re.compile(r"Application startup complete|Starting vLLM (API )?server on|Started server process"),
        "warming up",
    ),
    (
        re.compile(r"[Cc]apturing CUDA graphs?|Graph capturing finished|init engine .* took|[Ww]arming up"),
        "warming up",
    ),
    (
        re.compile(r"# GPU blocks|GPU KV cache size|CPU KV cache size|[Aa]vailable KV cache memory|profil", re.I),
        "profiling",
    ),
    (re.compile(r"torch\.compile|[Cc]ompil(ing|ation)|Dynamo bytecode"), "compiling"),
    (
        re.compile(r"Loading safetensors|[Ll]oading weights|Starting to load model|Model loading took"),
        "loading weights",
    ),
)


def phase_of(line: str) -> Progress | None:
    """The phase that a log line tells of, with a percentage while weights load; ``None`` for other lines."""
    if percent := _PERCENT.search(line):
        return Progress("loading weights", min(100.0, float(percent[1])))
    if " INFO " not in line and "Capturing" not in line:
        return None
    for pattern, phase in _PHASES:
        if pattern.search(line):
            return Progress(phase)
    return None
