"""What the driver says of a card: how much is used, and by whom. The last word on whether memory is back.

NVML has no event for memory, so that waiting for it is asking again and again.

Which card: ``CUDA_VISIBLE_DEVICES`` of our environment, which engines inherit, picks and orders the cards as it does
for CUDA, by UUID or by number; without it they are all of the driver's, in its order. Engines count as the driver
does (``CUDA_DEVICE_ORDER=PCI_BUS_ID``); a model with a ``CUDA_VISIBLE_DEVICES`` of its own is not followed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import psutil

from roundhouse.launchers import driver

POLL_S = 0.05
"""How often the card is read while somebody waits: a reading takes about a millisecond, and a switch seconds."""

RELEASED_S = 5.0
"""How long memory may take to come back. The driver frees a dead process's within a second, a sleeper's before it
says that it sleeps; what is still there after so long is held by somebody."""

WHOLE_CARD_BYTES = 256 * 2**20
"""How much our processes may seem to hold of a card that is read as a whole when they hold nothing: a desktop takes and
gives some hundred MiB all the time, and an engine has many times as much."""

UNLISTED_BYTES = 2**30
"""More than this that is used by nobody who is listed is somebody's whom the driver does not list: a display, and what
the driver takes per process, are less."""

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's number for the namespace in which the driver counts processes; in a container it is another one."""


class GaugeError(Exception):
    """The driver does not answer: the card is lost, or the driver is being changed. The text has the remedy."""


class NotReleased(Exception):
    """Processes still hold more of a device than they may: ``held`` > ``at_most``, in bytes, after ``after_s``."""

    def __init__(self, held: int, at_most: int, after_s: float) -> None:
        self.held, self.at_most, self.after_s = held, at_most, after_s
        gib = 2**30
        super().__init__(f"{held / gib:.2f} GiB are still held after {after_s:.0f} s, not {at_most / gib:.2f} GiB")


@dataclass(frozen=True, slots=True)
class Reading:
    """A device at one moment, in bytes. ``total`` and ``used`` are without what the driver keeps for itself.

    ``by_pid`` is what each process holds, and ``None`` where the driver does not say (WSL2, MIG) or counts
    processes otherwise than we do (in most containers).
    """

    total: int
    used: int
    by_pid: Mapping[int, int] | None

    @property
    def free(self) -> int:
        """What a new process could have."""
        return self.total - self.used

    def told_of(self, pids: Collection[int]) -> Mapping[int, int] | None:
        """``by_pid``, unless it is not about ``pids``, which have been loaded.

        A process has some of the card for as long as it lives. If none of them is listed, though one lives and much is
        used by nobody who is listed, the driver does not say who has it.
        """
        by_pid = self.by_pid
        if by_pid is None or any(pid in by_pid for pid in pids):
            return by_pid
        unlisted = self.used - sum(by_pid.values())
        return None if unlisted > UNLISTED_BYTES and any(psutil.pid_exists(pid) for pid in pids) else by_pid

    def held(self, pids: Collection[int], others: int = 0) -> int:
        """What ``pids`` hold; where the driver does not say, all that is used beside ``others``."""
        by_pid = self.told_of(pids)
        return max(0, self.used - others) if by_pid is None else sum(by_pid.get(pid, 0) for pid in pids)


@dataclass(frozen=True, slots=True)
class Foreign:
    """What others than our engines hold of a device, in bytes, and the names of their processes, biggest first."""

    used: int
    names: Sequence[str] = ()


class Gauge(Protocol):
    """Whatever can be read like cards; a device is known by its id in the YAML."""

    @property
    def card(self) -> str:
        """Cards and driver, in words: what is measured on others does not hold for these."""

    def total(self, device: str) -> int | None:
        """How much memory a device has for engines, in bytes; ``None`` if it is no card."""

    def read(self, device: str) -> Reading | None:
        """A device's memory now; ``None`` if it is no card. The driver may block: call it in a thread.

        Raises:
            GaugeError: the driver does not answer.
        """


class Nvml:
    """NVIDIA's driver, through its own library; one handle a card is kept."""

    def __init__(self, nvml: Any, handles: Mapping[str, Any]) -> None:
        self._nvml, self._handles = nvml, handles
        self._own_pids = _pids_are_the_drivers()
        names = dict.fromkeys(_text(nvml.nvmlDeviceGetName(handle)) for handle in handles.values())
        self.card = f"{', '.join(names)}, driver {_text(nvml.nvmlSystemGetDriverVersion())}"

    def total(self, device: str) -> int | None:
        """See Gauge."""
        reading = self.read(device)
        return None if reading is None else reading.total

    def read(self, device: str) -> Reading | None:
        """See Gauge."""
        nvml, handle = self._nvml, self._handles.get(device)
        if handle is None:
            return None
        try:
            memory = self._memory(handle)
            lists = (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses)
            processes = [_listed(nvml, ask, handle) for ask in lists]
        except nvml.NVMLError as error:
            raise GaugeError(driver.silent(error, device)) from error
        by_pid = self._by_pid(processes, int(memory.used))
        reserved = int(getattr(memory, "reserved", 0))
        return Reading(int(memory.total) - reserved, int(memory.used), by_pid)

    def close(self) -> None:
        """Let go of the driver."""
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _memory(self, handle: Any) -> Any:
        try:
            return self._nvml.nvmlDeviceGetMemoryInfo(handle, version=self._nvml.nvmlMemory_v2)
        except self._nvml.NVMLError:  # older drivers, MIG: what the driver keeps is in ``used``
            return self._nvml.nvmlDeviceGetMemoryInfo(handle)

    def _by_pid(self, lists: Sequence[Sequence[Any] | None], used: int) -> dict[int, int] | None:
        processes = [process for it in lists if it is not None for process in it]
        if None in lists or any(process.usedGpuMemory is None for process in processes):
            return None
        if not (self._own_pids or (processes and all(psutil.pid_exists(process.pid) for process in processes))):
            return None  # pids of the host; some drivers translate them, and then all of them are processes here
        if not processes and used > UNLISTED_BYTES:
            return None  # somebody has it, and the driver does not say who
        sizes: dict[int, int] = {}
        for process in processes:  # one that computes and draws is on both lists, with the same figure
            sizes[process.pid] = max(sizes.get(process.pid, 0), int(process.usedGpuMemory))
        return sizes


def open_gauge(devices: Sequence[str] = ("gpu0",)) -> Nvml | None:
    """The cards that ``devices`` (ids of the YAML) are: the first is the first one that CUDA shows, and so on.

    ``None`` where there is no driver, or no card that may be used.

    Raises:
        GaugeError: there is one, and the driver does not answer.
    """
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
        handles = dict(zip(devices, _visible(pynvml), strict=False))
        return Nvml(pynvml, handles) if handles else None
    except pynvml.NVMLError as error:
        if driver.absent(error):
            return None
        raise GaugeError(driver.silent(error)) from error


async def until_released(
    gauge: Gauge,
    device: str,
    pids: Collection[int],
    at_most: int,
    deadline_s: float = RELEASED_S,
    others: int = 0,
) -> int:
    """Return what ``pids`` still hold of the device, in bytes, as soon as that is ``at_most`` or less; 0 if no card.

    ``others`` is what the rest of the device's users hold: needed where the driver does not say who has what. There
    the answer is all that is used beside them, so that another's allocation in the meantime looks like ours, and up to
    WHOLE_CARD_BYTES are let pass. Cancellable.

    Raises:
        NotReleased: it is more at the deadline.
        GaugeError: the driver does not answer.
    """
    began = time.monotonic()
    while True:
        reading = await asyncio.to_thread(gauge.read, device)
        if reading is None:
            return 0
        held = reading.held(pids, others)
        bound = at_most if reading.told_of(pids) is not None else max(at_most, WHOLE_CARD_BYTES)
        if held <= bound:
            return held
        waited = time.monotonic() - began
        if waited >= deadline_s:
            raise NotReleased(held, bound, waited)
        await asyncio.sleep(POLL_S)


def foreign(reading: Reading, ours: Collection[int], booked: int = 0) -> Foreign:
    """What others hold: all that is used but what processes ``ours`` hold.

    Where the driver does not say who has what, all that is used but ``booked``, what our engines should hold.
    Memory that belongs to no listed process (a display without one, another container) is others' too.
    """
    by_pid = reading.told_of(ours)
    if by_pid is None:
        return Foreign(max(0, reading.used - booked))
    others = sorted((size, pid) for pid, size in by_pid.items() if pid not in ours)
    used = max(0, reading.used - reading.held(ours))
    return Foreign(used, tuple(f"{_name(pid)} (pid {pid})" for _, pid in reversed(others)))


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process of another user"


def _visible(nvml: Any) -> Iterator[Any]:
    """The handles of the cards that CUDA shows, in its order. As for CUDA, the first one that is not there ends it."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        yield from (nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount()))
        return
    for word in (part.strip() for part in chosen.split(",")):
        try:
            yield nvml.nvmlDeviceGetHandleByIndex(int(word)) if word.isdigit() else _by_uuid(nvml, word)
        except nvml.NVMLError as error:
            if error.value in driver.NO_SUCH_CARD:
                return
            raise


def _by_uuid(nvml: Any, word: str) -> Any:
    """The card of a UUID, or of the beginning of one, as CUDA allows. Raises NVMLError."""
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        if word.startswith("GPU-") and _text(nvml.nvmlDeviceGetUUID(handle)).startswith(word):
            return handle
    return nvml.nvmlDeviceGetHandleByUUID(word)  # a part of a card (MIG), or none


def _listed(nvml: Any, ask: Any, handle: Any) -> list[Any] | None:
    """The processes of one list; a card without such a list has none on it. ``None``: we are not told."""
    try:
        return list(ask(handle))
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
            return []
        if error.value in driver.NOT_TOLD:
            return None
        raise


def _pids_are_the_drivers() -> bool:
    """Whether the driver's pids mean the same processes here."""
    try:
        return os.readlink("/proc/self/ns/pid") == INITIAL_PID_NAMESPACE
    except OSError:
        return True


def _text(value: str | bytes) -> str:
    """Older bindings answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
