"""What each script says of a case: one line of JSON, for the table in docs/clients.md."""

from __future__ import annotations

import base64
import json
import struct
import traceback
import zlib
from collections.abc import Callable
from importlib.metadata import version

TOOL_ANSWER = "a.txt and b.txt"
LONG = 1500
"""Tokens for JSON by a grammar: models with random weights write a lot of the white space that it allows."""


def png() -> bytes:
    """A real picture of 64 x 48 pixels."""
    lines = (bytes((x * 4 % 256, y * 5 % 256, 90)[c] for x in range(64) for c in range(3)) for y in range(48))
    rows = b"".join(b"\0" + line for line in lines)

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def picture() -> str:
    """The picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png()).decode()


class Empty(Exception):
    """The model said nothing: one with random weights ends its answer at once, one time in 2,000."""


TRIES = 3
"""How often a case is begun whose answer was empty; any other fault counts at once."""


def said(text: object) -> None:
    """There has to be a text. Raises Empty."""
    if not text:
        raise Empty


def refused(kind: type[Exception], call: Callable[[], object], words: str = "Did you mean 'reasoning'?") -> None:
    """The call is to be refused, as the client's own ``kind`` of error, with these words of ours in it."""
    try:
        call()
    except kind as error:
        assert words in str(error), error  # noqa: PT017
        return
    raise AssertionError("it was answered")


def run(package: str, *cases: Callable[[], None]) -> None:
    """Run the cases and say of each whether it worked, and which version of the client it was."""
    for case in cases:
        line = {"client": package, "version": version(package), "case": case.__name__}
        for _ in range(TRIES):
            line["ok"] = False
            try:
                case()
                line["ok"] = True
            except Empty:
                line["why"] = f"no text came, {TRIES} times"
                continue
            except BaseException as error:
                line["why"] = "".join(traceback.format_exception(error))[-1500:]
            break
        print(json.dumps(line), flush=True)
