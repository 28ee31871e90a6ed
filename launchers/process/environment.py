"""What an engine gets to see of our environment, and how ``${NAME}`` in the YAML is filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from roundhouse.launchers.base import LaunchError

#: Never handed on: the gateway's secrets, and what would bend the engine's own interpreter or backend.
_WITHHELD = re.compile(
    r"(LITELLM_|REDIS_|DATABASE_|ROUNDHOUSE_ENGINE_KEY|ROUNDHOUSE_STACK|UI_).*|.*(KEY|TOKEN|SECRET|PASSWORD)"
    r"|PYTHON(DONTWRITEBYTECODE|PATH|HOME|_GC_THRESHOLD)|VIRTUAL_ENV"
    r"|VLLM_ATTENTION_BACKEND|XFORMERS_DISABLED"  # stale settings of old vLLM releases
)
_NAME = re.compile(r"\$\{(\w+)\}")


def inherited() -> dict[str, str]:
    """Our environment without what engines must not see."""
    return {name: value for name, value in os.environ.items() if not _WITHHELD.fullmatch(name)}


def expand(text: str, model: str, port: int) -> str:
    """Fill in every ``${NAME}``: ``PORT``, else a variable of our environment.

    Raises:
        LaunchError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "PORT":
            return str(port)
        if name not in os.environ:
            raise LaunchError(
                model, f"model {model!r}: the launcher uses ${{{name}}}, which is not set; put it into .env"
            )
        return os.environ[name]

    return _NAME.sub(value, text)


def engine_environment(
    model: str, port: int, extra: Mapping[str, str], interpreter: Path | None = None
) -> dict[str, str]:
    """The environment of an engine: ours without secrets, then ``extra`` of the YAML."""
    env = inherited() | {name: expand(value, model, port) for name, value in extra.items()}
    if interpreter is not None:  # tools of the engine's environment (ninja, say) come first
        env["PATH"] = f"{interpreter.parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env
