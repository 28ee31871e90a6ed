"""The file `.env`: secrets, made once."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from .errors import SetupError

MADE: dict[str, tuple[str, Callable[[], str]]] = {
    "LITELLM_MASTER_KEY": ("the gateway's admin key", lambda: f"sk-{secrets.token_urlsafe(32)}"),
    "ROUNDHOUSE_ENGINE_KEY": ("between the gateway and the engines", lambda: secrets.token_urlsafe(32)),
    "LITELLM_SALT_KEY": (
        "encrypts what the database keeps; never change it",
        lambda: f"sk-{secrets.token_urlsafe(32)}",
    ),
    "UI_PASSWORD": ("of the admin UI; the user is UI_USERNAME, by default admin", lambda: secrets.token_urlsafe(32)),
    "REDIS_PASSWORD": ("of the local Redis", lambda: secrets.token_urlsafe(32)),
}


def missing(path: Path) -> list[str]:
    """Which secrets `path` does not hold; all of them when there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return list(MADE)
    held = set()
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name = name.strip()
        if equals and name in MADE and not value.strip().strip("\"'"):
            raise SetupError(f"{path}: line {number}: {name} is empty; fill it in, or delete the line to get one")
        if equals:
            held.add(name)
    return [name for name in MADE if name not in held]


def setting(path: Path, name: str) -> str:
    """What `name` is set to, in the environment or else in `path`; "" where it is not."""
    if name in os.environ:
        return os.environ[name]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    pairs = (line.strip().removeprefix("export ").partition("=") for line in lines)
    return next((value.strip().strip("\"'") for key, _, value in pairs if key.strip() == name), "")


def keys_are_on(path: Path) -> bool:
    """Are virtual keys wanted? On, unless `ROUNDHOUSE_KEYS` is off."""
    value = setting(path, "ROUNDHOUSE_KEYS")
    if value not in ("", "on", "off"):
        raise SetupError(f"ROUNDHOUSE_KEYS is {value!r}: it must be on or off")
    return value != "off"


def complete(path: Path) -> None:
    """Add the secrets that `path` lacks. What it holds stays as it is; nobody else may read it (0600)."""
    names = missing(path)
    if not names:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        os.fchmod(file.fileno(), 0o600)
        before = file.read()
        lines = [f"# {MADE[name][0]}\n{name}={MADE[name][1]()}\n" for name in names]
        text = "\n" if before and not before.endswith(b"\n") else ""
        if not before:
            text = "# Made by the set-up; keep it to yourself. Every setting is explained in .env.example.\n"
        os.write(file.fileno(), (text + "".join(lines)).encode())
        os.fsync(file.fileno())
