"""The checks that are not tests: lint, format, types, import contracts. One command runs everything."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
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


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENGINE = {"torch", "transformers", "vllm"}
"""Imported by what runs in the engine environment."""


def imported(file: Path) -> Iterator[str]:
    """The packages from which a file imports, by the names under which it does."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def normal(requirement: str) -> str:
    """The name of a requirement as package indexes compare it."""
    return re.sub("[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


@pytest.mark.parametrize("of", ["the product", "the tests"])
def test_every_package_that_is_imported_is_declared(of: str) -> None:
    declared = {normal(it) for it in PROJECT["project"]["dependencies"]} | {"litellm-proxy-extras"}  # litellm[proxy]
    folders = [ROOT / "tests" / name for name in ("unit", "integration", "acceptance", "support")]
    if of == "the product":
        folders = [ROOT / name for name in PARTS]
    else:
        declared |= {normal(it) for it in PROJECT["project"]["optional-dependencies"]["dev"]}
    names = {name for folder in folders for file in folder.rglob("*.py") for name in imported(file)}
    others = names - sys.stdlib_module_names - ENGINE - {"roundhouse", "tests"}
    assert len(others) > 5
    known = packages_distributions()
    assert sorted(name for name in others if not declared & {normal(it) for it in known.get(name, [name])}) == []


PARTS = sorted(path.name for path in (ROOT / "src" / "roundhouse").iterdir() if path.is_symlink())


def test_no_part_of_the_package_can_be_imported_by_a_second_name() -> None:
    banned = PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert sorted(banned) == PARTS
    code = "import residency.states\nfrom hooks import limits\n"
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--output-format", "concise", "-"]
    done = subprocess.run(command, input=code, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.count("TID251") == 2, done.stdout + done.stderr
