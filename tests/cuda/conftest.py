"""Tests of the real CUDA environment that need no card: `./roundhouse test -m cuda` makes the environment, 4 GB, and
runs them. They are no part of the ordinary run.

vLLM's own code is asked, with drivers that only pretend: it gets as far as its first real call of the driver.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from roundhouse.launchers.vllm.launcher import is_cpu
from tests.cuda import folders
from tests.cuda.pretend import Machine, machine

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-engine-cuda" / "bin" / "python"
PACKAGED = "Qwen/Qwen2.5-{}-AWQ"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder has the mark, and time for vLLM's imports."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cuda)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of the tests' own, whose engines are of the CUDA environment."""
    assert PYTHON.exists(), f"{PYTHON} is missing: './roundhouse test -m cuda' makes it"
    assert not is_cpu(PYTHON)
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUNDHOUSE_HOME", str(folder))
        patch.setenv("ROUNDHOUSE_ENGINE_PYTHON", str(PYTHON))
        patch.setenv("ROUNDHOUSE_MODELS", "hub")
        patch.setenv("ROUNDHOUSE_ENGINE_KEY", "key-of-the-engines")
        yield folder


@pytest.fixture(scope="session")
def pretend(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The machine with the pretend drivers."""
    return machine(PYTHON, tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="session")
def hub(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model of the YAMLs, as the hub would give it, without weights."""
    root = tmp_path_factory.mktemp("hub")
    script = ROOT / "launchers" / "vllm" / "tiny_models.py"
    subprocess.run([PYTHON, "-P", script, root / "tiny"], check=True, capture_output=True)
    for name in folders.known():
        folders.write(name, root, root / "tiny")
    return root
