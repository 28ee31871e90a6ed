"""llm, the command: its models stand in extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import LONG, png, run, said

HOME = Path(tempfile.mkdtemp(prefix="llm-"))
MODEL = """
- model_id: rh-{0}
  model_name: {0}
  api_base: {1}
  api_key_name: roundhouse
  vision: {2}
  supports_schema: true
  supports_tools: true
"""
BASE = os.environ["OPENAI_BASE_URL"]
NAMES = ("reasoning", "vision", "reasonning")
models = "".join(MODEL.format(name, BASE, str(name == "vision").lower()) for name in NAMES)
(HOME / "extra-openai-models.yaml").write_text(models)
(HOME / "keys.json").write_text(json.dumps({"roundhouse": os.environ["OPENAI_API_KEY"]}))
(HOME / "picture.png").write_bytes(png())
(HOME / "tools.py").write_text('def list_files() -> str:\n    """The files."""\n    return "a.txt and b.txt"\n')


def llm(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).with_name("llm")), *words]
    return subprocess.run(argv, env={**os.environ, "LLM_USER_PATH": str(HOME)}, capture_output=True, text=True)


def asked(*words: str) -> str:
    done = llm(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def chat() -> None:
    said(asked("-m", "rh-reasoning", "-o", "max_tokens", "40", "--no-stream", "Hello"))


def stream() -> None:
    said(asked("-m", "rh-reasoning", "-o", "max_tokens", "40", "Hello"))


def tools() -> None:
    functions = str(HOME / "tools.py")
    said(asked("-m", "rh-reasoning", "-o", "max_tokens", "40", "--functions", functions, "Which files are there?"))


def structured() -> None:
    light = json.loads(asked("-m", "rh-reasoning", "-o", "max_tokens", str(LONG), "--schema", "on bool", "Is it on?"))
    assert isinstance(light["on"], bool)


def vision() -> None:
    said(asked("-m", "rh-vision", "-o", "max_tokens", "40", "-a", str(HOME / "picture.png"), "What is this?"))


def errors() -> None:
    done = llm("-m", "rh-reasonning", "Hello")
    assert done.returncode != 0
    assert "Did you mean 'reasoning'?" in done.stderr, done.stderr


run("llm", chat, stream, tools, structured, vision, errors)
