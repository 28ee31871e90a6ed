"""Whether this machine can run vLLM for CUDA: asked before anything is downloaded, every fault at once.

`gather` takes down the facts, the rest decides. Each fault is one line that says what to type.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import card
from .errors import SetupError
from .pythons import Python

CUDA = (13, 0)
"""What torch 2.13.0+cu130, which the lock pins, was built with."""

DRIVER = 580
"""The first driver that runs CUDA 13, on every card (CUDA's release notes, "CUDA Toolkit and Corresponding Driver
Versions"; minor-version compatibility does not reach over a major version)."""

BUILT_FOR = ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0))
"""Compute capabilities for which torch 2.13.0+cu130 has code: `torch._C._cuda_getArchFlags()`. vLLM 0.32.0 has the same
and 8.9 (`cuobjdump --list-elf` of `vllm/_C_stable_libtorch.abi3.so`). Code runs on a capability with the same first
number and no lower second one; there is no PTX by which a driver could make code for newer cards."""

GB, GIB = 1_000_000_000, 2**30

LEAST_RAM = 4 * GIB
"""One engine's processes take 2.5 to 3 GiB, the gateway and the services one more."""


@dataclass(frozen=True)
class Disk:
    """A file system, where it was met, what is free of it and what it is to hold, in bytes."""

    path: Path
    free: int
    needed: float


@dataclass(frozen=True)
class Machine:
    """The facts. `system` is the ID of /etc/os-release, then those it is like; `ram` and `weights` are bytes.

    `compiler` is the C compiler that Triton would take, `chosen_compiler` what CC says; `python` the interpreter of the
    engine environment, and None where it cannot be told. `weights`: of all models together.
    """

    cards: card.Cards
    system: tuple[str, ...]
    wsl: bool
    compiler: str | None
    chosen_compiler: str | None
    python: Python | None
    disks: tuple[Disk, ...]
    ram: int
    weights: int = 0


class Unfit(SetupError):
    """This machine cannot run vLLM for CUDA as it is; the text has a line for each fault."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        text = "\n".join(f"  - {fault}" for fault in faults)
        super().__init__(f"this machine cannot run vLLM on its NVIDIA card yet; nothing was downloaded:\n{text}")


def faults(machine: Machine) -> list[str]:
    """What keeps vLLM for CUDA from running here; empty where nothing does."""
    found = [_driver(machine), _capability(machine), _compiler(machine), _headers(machine), *_disks(machine)]
    return [line for line in [*found, _too_little_ram(machine)] if line]


def notes(machine: Machine) -> list[str]:
    """What works, but not as well as it might."""
    budget = machine.ram // 2  # residency.ram_budget by default
    if machine.ram < LEAST_RAM or budget >= machine.weights:
        return []
    text = (
        f"half of the RAM ({budget / GB:.0f} GB) may hold sleeping models, these take {machine.weights / GB:.0f} GB: "
        "not all can sleep with their weights in RAM, the others are read from the disk again; 'plan' shows which"
    )
    return [f"{text}; {_MORE_RAM_ON_WSL}" if machine.wsl else text]


def _driver(machine: Machine) -> str | None:
    if machine.cards.cuda >= CUDA:
        return None
    major, minor = machine.cards.cuda
    return (
        f"driver: {machine.cards.driver}, which runs CUDA up to {major}.{minor}; vLLM here is built for "
        f"CUDA {CUDA[0]}, which needs driver {DRIVER} or newer: {_new_driver(machine)}"
    )


def _new_driver(machine: Machine) -> str:
    if machine.wsl:
        return "install it in Windows (nvidia.com/drivers), none in WSL, then type 'wsl --shutdown' there"
    if "ubuntu" in machine.system:
        return f"'sudo apt install nvidia-driver-{DRIVER}-open', then reboot"
    if "arch" in machine.system:
        return "'sudo pacman -Syu nvidia-open', then reboot"
    if "fedora" in machine.system[:1]:
        return "'sudo dnf install akmod-nvidia' (from RPM Fusion), then reboot"
    return "install it as your distribution does, or from nvidia.com/drivers, then reboot"


def _capability(machine: Machine) -> str | None:
    if any(_runs_on(capability) for capability in machine.cards.capabilities):
        return None
    cards = dict(zip(machine.cards.names, machine.cards.capabilities, strict=True))
    text = ", ".join(f"{name} ({major}.{minor})" for name, (major, minor) in cards.items())
    built = ", ".join(f"{major}.{minor}" for major, minor in BUILT_FOR)
    return (
        f"card: vLLM here is built for compute capabilities from {BUILT_FOR[0][0]}.{BUILT_FOR[0][1]} on ({built}), "
        f"not for {text}: {card.WITHOUT}"
    )


def _runs_on(capability: tuple[int, int]) -> bool:
    return any(major == capability[0] and minor <= capability[1] for major, minor in BUILT_FOR)


def _compiler(machine: Machine) -> str | None:
    if machine.compiler:
        return None
    if machine.chosen_compiler:
        return f"C compiler: CC says {machine.chosen_compiler!r}, which cannot be run: correct CC, or unset it"
    why = "C compiler: neither gcc nor clang is on PATH, and Triton, by which vLLM makes its kernels, needs one"
    return f"{why}: {_install(machine.system, dict.fromkeys(_INSTALL, 'gcc'), 'install gcc')}"


def _headers(machine: Machine) -> str | None:
    python = machine.python
    if python is None or python.headers:
        return None
    why = f"Python's headers: {python.include}/Python.h is missing; Triton, by which vLLM makes its kernels, needs it"
    other = f"install those of Python {python.minor}, or set ROUNDHOUSE_BASE_PYTHON to a Python that has them"
    if not python.executable.startswith("/usr/bin/"):  # not from a package of the system
        return f"{why}: {other}"
    major, minor = python.version[:2]
    packages = {
        "apt": f"python{major}.{minor}-dev",
        "dnf": f"python{major}.{minor}-devel",
        "pacman": "python",
        "zypper": f"python{major}{minor}-devel",
    }
    return f"{why}: {_install(machine.system, packages, other)}"


def _disks(machine: Machine) -> list[str]:
    return [
        f"disk: {disk.path} needs about {disk.needed / GB:.0f} GB, and {disk.free / GB:.1f} GB are free: free some"
        f"{', or use a smaller set-up (--profile small, --models tiny)' if machine.weights else ''}"
        for disk in machine.disks
        if disk.free < disk.needed
    ]


_MORE_RAM_ON_WSL = (
    "WSL2 has half of the machine's RAM by default: for more, write a line 'memory=48GB' below '[wsl2]' into "
    "%UserProfile%\\.wslconfig, then type 'wsl --shutdown' in Windows"
)


def _too_little_ram(machine: Machine) -> str | None:
    if machine.ram >= LEAST_RAM:
        return None
    text = f"RAM: {machine.ram / GIB:.1f} GiB, and an engine with its gateway needs {LEAST_RAM / GIB:.0f} GiB"
    return f"{text}: {_MORE_RAM_ON_WSL}" if machine.wsl else f"{text}: add some; 'up --profile cpu' takes less"


_INSTALL = {
    "apt": ("debian", "sudo apt install"),
    "dnf": ("fedora", "sudo dnf install"),
    "pacman": ("arch", "sudo pacman -S"),
    "zypper": ("suse", "sudo zypper install"),
}
"""Package managers: whom the systems that have them are like, and how to call them."""


def _install(system: tuple[str, ...], packages: Mapping[str, str], otherwise: str) -> str:
    """What to type for a package, named for each package manager; `otherwise`, in words, where none is known."""
    for name, (like, command) in _INSTALL.items():
        if like in system:
            return f"'{command} {packages[name]}'"
    return otherwise


def gather(cards: card.Cards, python: Python | None, needs: Iterable[tuple[Path, float]], weights: int) -> Machine:
    """The facts of this machine. `needs`: how many bytes each folder, there or not, is to take."""
    chosen = os.environ.get("CC")
    return Machine(
        cards=cards,
        system=_system(Path("/etc/os-release")),
        wsl=card.on_wsl(),
        compiler=shutil.which(chosen) if chosen else shutil.which("gcc") or shutil.which("clang"),
        chosen_compiler=chosen,
        python=python,
        disks=_file_systems(needs),
        ram=_ram(Path("/proc/meminfo")),
        weights=weights,
    )


def _system(release: Path) -> tuple[str, ...]:
    try:
        pairs = (line.partition("=") for line in release.read_text(encoding="utf-8").splitlines())
    except OSError:
        return ()
    values = {key: value.strip().strip("\"'") for key, _, value in pairs}
    names = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".lower().split()
    return tuple("suse" if "suse" in name else name for name in names)


def _file_systems(needs: Iterable[tuple[Path, float]]) -> tuple[Disk, ...]:
    """What each file system is to hold: folders on the same one share what is free."""
    found: dict[int, Disk] = {}
    for folder, needed in needs:
        place = next(path for path in (folder, *folder.parents) if path.exists())
        device = place.stat().st_dev
        before = found.get(device)
        at = before.path if before and before.needed else folder
        found[device] = Disk(at, shutil.disk_usage(place).free, (before.needed if before else 0) + needed)
    return tuple(found.values())


def _ram(meminfo: Path) -> int:
    """Bytes of RAM in all; a machine that does not say has plenty."""
    try:
        line = next(it for it in meminfo.read_text(encoding="utf-8").splitlines() if it.startswith("MemTotal:"))
    except (OSError, StopIteration):
        return 2**63
    return int(line.split()[1]) * 1024
