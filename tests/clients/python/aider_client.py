"""aider, the command: it reads OPENAI_API_BASE, and its models are called openai/NAME."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import run

FOLDER = Path(tempfile.mkdtemp(prefix="aider-"))
QUIET = ["--no-git", "--no-auto-commits", "--no-check-update", "--no-show-model-warnings", "--analytics-disable"]
QUIET += [
    "--no-gitignore",
    "--no-show-release-notes",
    "--no-pretty",
    "--yes-always",
    "--no-detect-urls",
    "--map-tokens",
    "0",
]


def aider(model: str, *words: str) -> str:
    argv = [sys.executable, "-m", "aider", *QUIET, "--model", f"openai/{model}", *words]
    env = {**os.environ, "OPENAI_API_BASE": os.environ["OPENAI_BASE_URL"], "HOME": str(FOLDER)}
    done = subprocess.run(argv, env=env, cwd=FOLDER, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


def chat() -> None:
    said = aider("code", "--no-stream", "--chat-mode", "ask", "--message", "What does this do?")
    assert "Tokens:" in said, said


def stream() -> None:
    (FOLDER / "a.py").write_text("print(1)\n")
    said = aider("code", "--chat-mode", "ask", "--message", "What does this do?", "a.py")
    assert "Tokens:" in said, said


def errors() -> None:
    said = aider("reasonning", "--chat-mode", "ask", "--message", "Hello")
    assert "Did you mean 'reasoning'?" in said, said


run("aider-chat", chat, stream, errors)
