"""The checks that are not tests: lint, format, types, import contracts. One command runs everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECKS = {
    "lint": ["-m", "ruff", "check", "."],
    "format": ["-m", "ruff", "format", "--check", "."],
    "types": ["-m", "mypy", "-p", "roundhouse"],
    # --verbose: without it import-linter 2.16 opens two live displays, which LiteLLM's rich refuses.
    "imports": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--verbose"],
}


@pytest.mark.timeout(300)  # mypy without its cache takes a minute on two slow cores
@pytest.mark.parametrize("name", list(CHECKS))
def test_the_code_passes(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, *CHECKS[name]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
