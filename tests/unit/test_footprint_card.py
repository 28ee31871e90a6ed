"""A card's memory as the driver says it: which card, by which version of its answer, and what a silent driver is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roundhouse.footprint import card
from roundhouse.footprint.card import CardError, card_bytes
from roundhouse.footprint.need import GIB

RESERVED = 400 * 2**20


class NVMLError(Exception):
    """What every call raises; ``value`` is NVML's number for it."""

    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(f"NVML error {value}")


class Driver:
    """NVML's bindings for cards of ``sizes`` bytes; each call named in ``errors`` raises that error."""

    NVMLError = NVMLError
    NVML_ERROR_INVALID_ARGUMENT = 2
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    nvmlMemory_v2 = 2

    def __init__(self, *sizes: int, **errors: int) -> None:
        self.sizes, self.errors, self.shut_down = sizes, errors, False

    def _may(self, call: str) -> None:
        if call in self.errors:
            raise NVMLError(self.errors[call])

    def nvmlInit(self) -> None:
        self._may("init")

    def nvmlShutdown(self) -> None:
        self.shut_down = True

    def nvmlDeviceGetCount(self) -> int:
        self._may("count")
        return len(self.sizes)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._may("handle")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        raise NVMLError(self.errors.get("uuid", self.NVML_ERROR_NOT_FOUND))

    def nvmlDeviceGetUUID(self, handle: int) -> bytes | str:
        return f"GPU-{handle}000" if handle else b"GPU-0000"

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: int | None = None) -> Any:
        self._may("memory" if version is None else "memory_v2")
        if version is None:
            return SimpleNamespace(total=self.sizes[handle])
        return SimpleNamespace(total=self.sizes[handle], reserved=RESERVED)


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing is known of an earlier card, and nothing is plugged in."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(card, "PCI", tmp_path / "pci")
    monkeypatch.setattr(card, "DXG", tmp_path / "dxg")
    card_bytes.cache_clear()
    yield
    card_bytes.cache_clear()


def asked(monkeypatch: pytest.MonkeyPatch, driver: Driver, number: int = 0) -> int | None:
    monkeypatch.setitem(sys.modules, "pynvml", driver)  # type: ignore[arg-type]
    return card_bytes(number)


def plug_in(vendor: str, kind: str) -> None:
    folder = card.PCI / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")


def test_what_the_driver_keeps_for_itself_is_not_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(16 * GIB)
    assert asked(monkeypatch, driver) == 16 * GIB - RESERVED
    assert driver.shut_down


def test_an_older_driver_says_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, Driver(16 * GIB, memory_v2=13)) == 16 * GIB


def test_a_card_that_has_no_memory_of_its_own_has_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, Driver(16 * GIB, memory_v2=3, memory=3)) is None


@pytest.mark.parametrize(
    ("visible", "number", "size"),
    [
        (None, 0, 16),
        (None, 1, 24),
        (None, 3, None),
        ("1", 0, 24),
        ("2,0", 0, 48),
        ("2,0", 1, 16),
        ("GPU-1", 0, 24),
        ("GPU-0, GPU-2000", 1, 48),
        ("", 0, None),
        ("-1", 0, None),
        ("7", 0, None),
        ("7,0", 0, None),
        ("GPU-f", 0, None),
    ],
)
def test_it_is_the_card_that_cuda_shows(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, number: int, size: int | None
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = asked(monkeypatch, Driver(16 * GIB, 24 * GIB, 48 * GIB), number)
    assert found == (None if size is None else size * GIB - RESERVED)


def test_without_a_driver_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, Driver(init=12)) is None


@pytest.mark.parametrize(
    ("vendor", "kind", "there"),
    [("0x10de", "0x030000", True), ("0x10de", "0x040300", False), ("0x1002", "0x030000", False)],
)
def test_a_driver_that_is_not_loaded_matters_where_there_is_a_card(
    monkeypatch: pytest.MonkeyPatch, vendor: str, kind: str, there: bool
) -> None:
    assert asked(monkeypatch, Driver(init=9)) is None
    plug_in(vendor, kind)
    card_bytes.cache_clear()
    if there:
        with pytest.raises(CardError):
            asked(monkeypatch, Driver(init=9))
    else:
        assert asked(monkeypatch, Driver(init=9)) is None


def test_on_wsl_the_card_is_on_no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    card.DXG.touch()
    with pytest.raises(CardError):
        asked(monkeypatch, Driver(init=9))


@pytest.mark.parametrize(
    "errors", [{"init": 18}, {"init": 4}, {"count": 999}, {"handle": 15}, {"memory": 15, "memory_v2": 15}]
)
def test_a_card_that_does_not_answer_is_not_no_card(monkeypatch: pytest.MonkeyPatch, errors: dict[str, int]) -> None:
    with pytest.raises(CardError, match="the NVIDIA driver does not answer") as error:
        asked(monkeypatch, Driver(16 * GIB, **errors))
    assert "nvidia-smi" in str(error.value)
    assert "\n" not in str(error.value)
    assert asked(monkeypatch, Driver(16 * GIB)) == 16 * GIB - RESERVED  # an error is not remembered


def test_a_driver_that_falls_silent_over_a_uuid_is_not_a_card_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-x")
    with pytest.raises(CardError):
        asked(monkeypatch, Driver(16 * GIB, uuid=15))
