"""The clients that the tests run against the gateway: SDKs, agents and commands, each as its users have it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from . import node
from .environment import Environment
from .errors import SetupError
from .pip import Part
from .pythons import Python

LOCK, AIDER_LOCK = "clients.txt", "aider.txt"
NEWEST_FOR_AIDER = (3, 12)
"""aider pins packages that have no wheels for later Pythons; it also pins a LiteLLM of its own."""


def environment(root: Path) -> Environment:
    """The Python clients that go together."""
    return Environment(root / ".venv-clients")


def aider(root: Path) -> Environment:
    """aider alone."""
    return Environment(root / ".venv-aider")


def node_folder(root: Path) -> Path:
    """The clients for Node."""
    return root / ".venv-tools" / "clients"


def complete(root: Path) -> bool:
    """Are the Python clients there?"""
    return environment(root).complete("clients", (LOCK,))


def aider_complete(root: Path) -> bool:
    """Is aider there?"""
    return aider(root).complete("aider", (AIDER_LOCK,))


def node_complete(root: Path) -> bool:
    """Are the clients for Node there, as their lock says?"""
    try:
        return _stamp(root).read_bytes() == (_node_source(root) / "package-lock.json").read_bytes()
    except OSError:
        return False


def make(part: Part, root: Path, pythons: list[Python]) -> None:
    """Make the environment of the Python clients."""
    _make(part, environment(root), "clients", LOCK, pythons)


def make_aider(part: Part, root: Path, pythons: list[Python]) -> None:
    """Make aider's environment. Raises SetupError where every Python is too new."""
    fit = [it for it in pythons if it.version[:2] <= NEWEST_FOR_AIDER]
    if not fit:
        raise SetupError("clients: aider needs Python 3.11 or 3.12 beside the newer one; install one of them")
    _make(part, aider(root), "aider", AIDER_LOCK, fit)


def make_node(part: Part, root: Path, fetch: Callable[[], Path]) -> None:
    """Install the clients for Node; `fetch` gets a Node where the system has none."""
    part.show("fetching the clients for Node")
    node.install(part, node.find(fetch), _node_source(root), node_folder(root), "")
    shutil.copyfile(_node_source(root) / "package-lock.json", fresh := _stamp(root).with_suffix(".new"))
    os.replace(fresh, _stamp(root))


def _make(part: Part, it: Environment, name: str, lock: str, pythons: list[Python]) -> None:
    it.create(part, pythons)
    it.install(part, lock)
    it.finish(name, (lock,))


def _node_source(root: Path) -> Path:
    return root / "tests" / "clients" / "node"


def _stamp(root: Path) -> Path:
    return root / ".venv-tools" / "clients.stamp"
