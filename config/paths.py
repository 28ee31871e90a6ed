"""Where things are: the project's files, the private home, the sockets, the secrets.

Everything can be moved by an environment variable, so that several stacks run side by side.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from psutil import virtual_memory

from roundhouse.deploy.setup import choice
from roundhouse.deploy.setup.errors import foreign

Profile = Literal["auto", "cpu", "rtx5080", "small", "int4-large"]
"""A set-up: ``auto`` chooses by the machine; the others are files."""

PROFILES: tuple[Profile, ...] = get_args(Profile)
FOR_A_CARD = choice.FOR_A_CARD

SOCKET_PATH_BYTES = 100
"""A unix socket's path may have 107 bytes on Linux; some are left for whoever adds a suffix."""

DEFAULT_PORT = 7000

TWO_WORKERS_CORES, TWO_WORKERS_RAM = 4, 8 * 2**30
"""From here on LiteLLM has two workers: each takes up to one core and 345 MiB, and engines need some, too."""


def project_root() -> Path:
    """The folder of the Procfile: the checkout, or the packaged copy of an installed wheel."""
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "Procfile").is_file() or (checkout / "pyproject.toml").is_file():
        return checkout
    return Path(__file__).resolve().parent / "project"


def in_checkout() -> bool:
    """Whether the package runs from a checkout rather than from an installed wheel."""
    return (project_root() / "pyproject.toml").is_file()


def home() -> Path:
    """``ROUNDHOUSE_HOME``, by default ``.roundhouse`` in the checkout or here; made, for this user only."""
    base = project_root() if in_checkout() else Path.cwd()
    path = Path(os.environ.get("ROUNDHOUSE_HOME") or base / ".roundhouse").expanduser().absolute()
    return _private(path)


def run_dir() -> Path:
    """Sockets, pids and records of what runs."""
    return _private(home() / "run")


def log_dir() -> Path:
    """One log per service, and per engine ``engine-MODEL.log``."""
    return _private(home() / "log")


def compiled() -> Path:
    """What engines compile when they start, and find again at the next."""
    return home() / "cache"


def measurements() -> Path:
    """What was measured of engines: times and memory."""
    return home() / "measurements.json"


def journal() -> Path:
    """What happened, request by request, where the configuration asks for it."""
    return home() / "journal.jsonl"


def callers() -> Path:
    """What was learned of the pauses of callers."""
    return home() / "callers.json"


def calibration() -> Path:
    """By how much estimates of waits were wrong."""
    return home() / "calibration.json"


def engine_records() -> Path:
    """One JSON file per engine that runs."""
    return _private(run_dir() / "engines")


def host_records() -> Path:
    """The record of the engine host."""
    return _private(run_dir() / "host")


def host_socket() -> Path:
    """Where residency talks to the engine host."""
    return socket_file("host.sock")


def engine_scratch(port: int) -> Path:
    """Where the engine on ``port`` has its own sockets, named by 36 characters each."""
    return socket_file(f"engine-{port}", room=37)


def socket_file(name: str, room: int = 0) -> Path:
    """The path of a unix socket, or of a folder for sockets whose names take ``room`` more bytes.

    It is in the home, or in a short private folder where that path would be too long.
    """
    path = run_dir() / name
    if len(os.fsencode(path)) + room <= SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(path.parent)).hexdigest()[:12]
    return _private(Path("/tmp") / f"roundhouse-{os.getuid()}-{digest}") / name


def control_socket() -> Path:
    """Residency's control socket."""
    return socket_file("residency.sock")


def port() -> int:
    """The gateway's port, ``ROUNDHOUSE_PORT``.

    Raises:
        ValueError: it is not a port.
    """
    text = os.environ.get("ROUNDHOUSE_PORT") or str(DEFAULT_PORT)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ValueError(f"ROUNDHOUSE_PORT is {text!r}: it must be a number from 1 to 65535")
    return int(text)


def workers() -> int:
    """How many LiteLLM workers there are, ``ROUNDHOUSE_WORKERS``; by default as many as the machine has room for.

    Raises:
        ValueError: it is not a number of processes.
    """
    text = os.environ.get("ROUNDHOUSE_WORKERS") or "auto"
    if text == "auto":
        room = len(os.sched_getaffinity(0)) >= TWO_WORKERS_CORES and virtual_memory().total >= TWO_WORKERS_RAM
        return 2 if room else 1
    if not text.isdigit() or not 0 < int(text) <= 64:
        raise ValueError(f"ROUNDHOUSE_WORKERS is {text!r}: it must be auto, or a number from 1 to 64")
    return int(text)


def engine_python() -> Path:
    """``ROUNDHOUSE_ENGINE_PYTHON``, else that of the environment which the set-up makes for the configuration."""
    own = os.environ.get("ROUNDHOUSE_ENGINE_PYTHON")
    return Path(own) if own else engine_kind().python(environments())


def engine_kind() -> choice.Kind:
    """Whether the configuration's engines run on the card or on the CPU."""
    return _engine(environments(), os.environ.get("ROUNDHOUSE_CONFIG"))


def engines_are_on_a_card() -> bool:
    """Whether the configuration's engines are vLLM for CUDA."""
    return engine_kind() is choice.Kind.CUDA


def environments() -> Path:
    """The folder of the engine environments."""
    return project_root() if in_checkout() else home()


@cache
def _engine(root: Path, config: str | None) -> choice.Kind:
    """Kept: it is asked for each engine, and the driver takes some 50 ms. If that goes away later, nothing changes."""
    return choice.choose(root, Path(config).expanduser().absolute() if config else None)


def default_config_file(profile: Profile = "auto") -> Path:
    """The YAML of a profile; ``auto`` is the RTX 5080's where there is an NVIDIA card, else the CPU's."""
    if profile == "rtx5080" or (profile == "auto" and has_nvidia_card()):
        return project_root() / "litellm_config.yaml"
    name = "cpu" if profile == "auto" else profile
    return Path(__file__).resolve().parent / "presets" / f"{name}.yaml"


def config_file() -> Path:
    """``ROUNDHOUSE_CONFIG``, else the default for this machine."""
    chosen = os.environ.get("ROUNDHOUSE_CONFIG")
    return Path(chosen).expanduser().absolute() if chosen else default_config_file()


def has_nvidia_card() -> bool:
    """Whether this machine has an NVIDIA card. One whose driver does not answer is there all the same."""
    return _engine(environments(), None) is choice.Kind.CUDA


def env_file() -> Path:
    """The secrets: ``.env`` beside the Procfile, or here where there is no checkout."""
    return (project_root() if in_checkout() else Path.cwd()) / ".env"


def env_file_settings() -> dict[str, str]:
    """What stands in ``.env``."""
    try:
        lines = env_file().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    matches = (re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*", line) for line in lines)
    found: dict[str, str] = {}
    for match in matches:
        if match:
            found.setdefault(match[1], match[2].strip("'\""))
    return found


def load_env_file() -> None:
    """Put the settings of ``.env`` into the environment; what is there already wins."""
    for name, value in env_file_settings().items():
        os.environ.setdefault(name, value)


def _private(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "cannot be written", str(path))
    except PermissionError as error:
        sys.exit(f"roundhouse: {foreign(error)}")
    except OSError as error:
        sys.exit(f"cannot make the folder {path}: {error.strerror}; set ROUNDHOUSE_HOME to one that can be written")
    if path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path
