"""The lock files: exact, hashed, without addresses."""

from __future__ import annotations

import re
import tomllib

import pytest

from roundhouse.deploy.setup.environment import REQUIREMENTS

LOCKS = sorted(path.name for path in REQUIREMENTS.glob("*.txt"))


def _requirements(name: str) -> list[str]:
    text = (REQUIREMENTS / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _pins(name: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for line in _requirements(name):
        project, version = line.split()[0].split("==")
        pins.setdefault(project, set()).add(version)
    return pins


def test_every_lock_is_there() -> None:
    assert LOCKS == [
        "aider.txt",
        "clients.txt",
        "dev.txt",
        "engine-cpu.txt",
        "engine-cuda.txt",
        "node.txt",
        "postgres.txt",
        "proxy.txt",
        "tools.txt",
    ]


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_exact_and_hashed(name: str) -> None:
    for line in _requirements(name):
        assert re.match(r"[A-Za-z0-9._-]+==\S+ ", line), line
        assert "--hash=sha256:" in line, line


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_holds_an_address_or_an_option(name: str) -> None:
    text = (REQUIREMENTS / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(-i|--index|--extra|--find|-f|-e|/)", text, re.MULTILINE)


def test_the_tools_of_the_checks_run_with_what_the_gateway_runs_with() -> None:
    proxy, dev = _pins("proxy.txt"), _pins("dev.txt")
    assert {name: dev.get(name) for name in proxy} == proxy


def test_torch_for_the_cpu_is_in_no_lock() -> None:
    assert not {"torch", "torchvision", "torchaudio", "torchcodec"} & set(_pins("engine-cpu.txt"))


def test_the_locks_are_of_the_projects_requirements() -> None:
    project = tomllib.loads((REQUIREMENTS.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[\[<>=~!; ]", line)[0].lower() for line in project["dependencies"]}
    assert names <= set(_pins("proxy.txt"))
    names = {re.split(r"[\[<>=~!; ]", line)[0].lower() for line in project["optional-dependencies"]["dev"]}
    assert names <= set(_pins("dev.txt"))
