"""Headers of safetensors files: every tensor's name, type, shape and size, without reading the weights."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LENGTH_BYTES = 8
"""The header's length, little-endian, stands before the header (safetensors' format)."""

HEADER_MAX_BYTES = 100_000_000
"""safetensors' own limit: a longer one is not a header."""


class FilesError(Exception):
    """A model's files cannot be read as what they should be. The text says which file, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as stored: ``dtype`` in safetensors' words (``BF16``, ``I32`` ...), ``size`` in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        result = 1
        for length in self.shape:
            result *= length
        return result


def read_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a safetensors file.

    Raises:
        FilesError: the file cannot be read, is no safetensors file, or ends before its last tensor does.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, HEADER_MAX_BYTES):
                raise FilesError(f"{path} is truncated, or no safetensors file: fetch it again")
            text = file.read(length)
    except OSError as error:
        raise FilesError(f"{path} cannot be read ({error.strerror})") from error
    try:
        entries = {name: it for name, it in json.loads(text).items() if name != "__metadata__"}
        tensors = tuple(tensor(name, it) for name, it in entries.items())
        end = max((int(it["data_offsets"][1]) for it in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise FilesError(f"{path} has a header that is no safetensors header: fetch it again") from error
    if LENGTH_BYTES + length + end > size:
        missing = LENGTH_BYTES + length + end - size
        raise FilesError(f"{path} is truncated, {missing} bytes are missing: fetch it again")
    return tensors


def tensor(name: str, raw: dict[str, Any]) -> Tensor:
    """One entry of a header. Raises KeyError, TypeError or IndexError if it is none."""
    begin, end = raw["data_offsets"]
    return Tensor(name, str(raw["dtype"]), tuple(int(it) for it in raw["shape"]), int(end) - int(begin))
