"""Reading weights ahead: what is asked of the kernel, and where it stops."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from roundhouse.launchers.vllm import page_cache
from roundhouse.launchers.vllm.page_cache import STEP_BYTES, read_ahead

Available = Callable[[int], None]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """File and offset of everything that the kernel is asked to read."""
    seen: list[tuple[str, int]] = []

    def fadvise(fd: int, at: int, length: int, advice: int) -> None:
        assert (length, advice) == (STEP_BYTES, os.POSIX_FADV_WILLNEED)
        seen.append((Path(os.readlink(f"/proc/self/fd/{fd}")).name, at))

    monkeypatch.setattr(os, "posix_fadvise", fadvise)
    return seen


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> Available:
    def of(size: int) -> None:
        monkeypatch.setattr(page_cache.psutil, "virtual_memory", lambda: SimpleNamespace(available=size))

    return of


def sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


async def test_all_weights_and_nothing_else(tmp_path: Path, asked: list[tuple[str, int]], available: Available) -> None:
    available(2**40)
    sparse(tmp_path / "model-1.safetensors", STEP_BYTES + 1)
    sparse(tmp_path / "model-2.safetensors", 10)
    sparse(tmp_path / "tokenizer.json", 10)
    assert await read_ahead(tmp_path) == 3 * STEP_BYTES
    assert asked == [("model-1.safetensors", 0), ("model-1.safetensors", STEP_BYTES), ("model-2.safetensors", 0)]


async def test_no_more_than_half_of_the_memory_that_is_available(
    tmp_path: Path, asked: list[tuple[str, int]], available: Available
) -> None:
    available(6 * STEP_BYTES)
    sparse(tmp_path / "model.safetensors", 100 * STEP_BYTES)
    assert await read_ahead(tmp_path) == 3 * STEP_BYTES
    assert len(asked) == 3
