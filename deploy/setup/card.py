"""What NVIDIA's driver says of the cards of this machine. A card that does not answer is not "no card"."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import SetupError

LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
"""The driver's library for asking; on WSL2 Windows' driver puts it where not every loader looks."""

PCI = Path("/sys/bus/pci/devices")
DXG = Path("/dev/dxg")
"""WSL2's way to the card, which is on no bus there."""

NOT_SUPPORTED, NO_PERMISSION, NOT_LOADED, FUNCTION_NOT_FOUND = 3, 4, 9, 13
LOST, RESET_REQUIRED, BLOCKED, MISMATCH = 15, 16, 17, 18
"""Answers of NVML (nvml.h, nvmlReturn_t)."""

WITHOUT = "'up --profile cpu' does without the card"

REMEDIES = {
    NO_PERMISSION: "this user may not use it: see 'ls -l /dev/nvidia*', join the group that owns these, log in again; "
    "a container has to be given the card",
    LOST: "it has fallen off the bus: turn the machine off and on; 'sudo dmesg | grep -i xid' says why",
    RESET_REQUIRED: "it has to be reset: reboot",
    BLOCKED: "the operating system keeps it from us: reboot",
    MISMATCH: "the driver was updated, and the kernel still has the old one: reboot, or end what uses the card and "
    "type 'sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia'",
    NOT_LOADED: "the driver's kernel module is not loaded: 'sudo modprobe nvidia'; if that fails, "
    "'sudo dmesg | grep -i nvidia' says why (Secure Boot refuses a module that is not signed)",
}
"""What to do, by NVML's answer."""

ON_WSL = "update NVIDIA's driver in Windows if that is old, then type 'wsl --shutdown' there and begin anew"
"""There the driver is Windows', and nothing can be loaded, reset or rebooted from within."""

OTHERWISE = "reboot; if that does not help, see what 'nvidia-smi' says"


@dataclass(frozen=True)
class Cards:
    """The cards that answer, in the driver's order.

    `memory` is in bytes, each card's whole, 0 for one that shares the machine's; `cuda` is the newest CUDA that the
    driver can, (0, 0) for a driver too old to say.
    """

    names: tuple[str, ...]
    capabilities: tuple[tuple[int, int], ...]
    memory: tuple[int, ...]
    driver: str
    cuda: tuple[int, int]

    def __str__(self) -> str:
        return f"{', '.join(dict.fromkeys(self.names))}, driver {self.driver}"


class CardError(SetupError):
    """There is a card, but its driver does not answer: one line, with the remedy."""


class _Answer(Exception):
    """What NVML answers instead of what it was asked for."""

    def __init__(self, code: int, words: str) -> None:
        self.code = code
        super().__init__(f"{words}, NVML error {code}")


def find() -> Cards | None:
    """The cards; None where there is no driver, or no card. Takes some 50 ms on a machine that has one.

    Raises:
        CardError: there is one that does not answer.
    """
    nvml = _library()
    if nvml is None:
        return None
    try:
        _ask(nvml, "nvmlInit_v2")
        try:
            return _cards(nvml)
        finally:
            nvml.nvmlShutdown()
    except _Answer as answer:
        if answer.code == NOT_LOADED and not on_bus() and not on_wsl():
            return None  # the library came with other packages
        raise CardError(_line(answer)) from answer


def on_bus() -> bool:
    """Is there an NVIDIA card, driver or not? Of no use on WSL2."""
    return any(
        _word(device / "vendor") == "0x10de" and _word(device / "class").startswith("0x03")
        for device in (PCI.iterdir() if PCI.is_dir() else ())
    )


def without_driver() -> bool:
    """Is there a card that nobody has installed a driver for?"""
    return on_bus() and _library() is None


def on_wsl() -> bool:
    """Is this a Linux in Windows that may have its card?"""
    return DXG.exists()


def _library() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _cards(nvml: Any) -> Cards | None:
    """Those that answer. One of several that does not is passed over; raises _Answer if none does."""
    count = ctypes.c_uint(0)
    _ask(nvml, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    found, silent = [], None
    for number in range(count.value):
        try:
            found.append(_card(nvml, number))
        except _Answer as answer:
            silent = silent or answer
    if not found and silent is not None:
        raise silent
    if not found:
        return None
    names, capabilities, memory = zip(*found, strict=True)
    return Cards(names, capabilities, memory, _text(nvml, "nvmlSystemGetDriverVersion"), _cuda(nvml))


def _card(nvml: Any, number: int) -> tuple[str, tuple[int, int], int]:
    handle, major, minor = ctypes.c_void_p(), ctypes.c_int(0), ctypes.c_int(0)
    _ask(nvml, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(number), ctypes.byref(handle))
    _ask(nvml, "nvmlDeviceGetCudaComputeCapability", handle, ctypes.byref(major), ctypes.byref(minor))
    memory = (ctypes.c_ulonglong * 3)()  # nvmlMemory_t: total, free, used
    try:
        _ask(nvml, "nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
    except _Answer as answer:
        if answer.code != NOT_SUPPORTED:
            raise
    return _text(nvml, "nvmlDeviceGetName", handle), (major.value, minor.value), memory[0]


def _cuda(nvml: Any) -> tuple[int, int]:
    """Of 1000 * major + 10 * minor."""
    version = ctypes.c_int(0)
    try:
        _ask(nvml, "nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(version))
    except _Answer:
        return (0, 0)
    return (version.value // 1000, version.value % 1000 // 10)


def _text(nvml: Any, call: str, *arguments: Any) -> str:
    text = ctypes.create_string_buffer(128)
    _ask(nvml, call, *arguments, text, ctypes.c_uint(len(text)))
    return text.value.decode(errors="replace")


def _ask(nvml: Any, call: str, *arguments: Any) -> None:
    """Raises _Answer for any answer but success."""
    function: Callable[..., int] | None = getattr(nvml, call, None)
    code = FUNCTION_NOT_FOUND if function is None else int(function(*arguments))
    if code != 0:
        nvml.nvmlErrorString.restype = ctypes.c_char_p
        raise _Answer(code, (nvml.nvmlErrorString(code) or b"unknown").decode(errors="replace"))


def _line(answer: _Answer) -> str:
    remedy = ON_WSL if on_wsl() else REMEDIES.get(answer.code, OTHERWISE)
    return f"there is an NVIDIA card, but its driver does not answer ({answer}); {remedy}; {WITHOUT}"


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
