"""What a failed set-up says: one line with what, where and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from roundhouse.deploy.setup import card
from roundhouse.deploy.setup.command import needs
from roundhouse.deploy.setup.errors import from_os_error, from_pip

LOG = Path("/home/me/log/setup.log")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("WARNING: Retrying after connection broken by 'Failed to establish a new connection: [Errno 111]'", "network"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space left"),
        ("ERROR: Could not install packages due to an OSError: [Errno 30] Read-only file system: '/x'", "written"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "pinned"),
        ("ERROR: No matching distribution found for a==1 (from -r x)", "has no a==1 for this Python"),
        ("ERROR: something else", "something else"),
    ],
)
def test_what_pip_said_becomes_one_line_that_names_the_log(output: str, expected: str) -> None:
    text = str(from_pip(["Collecting x", output], LOG, "engine"))
    assert expected in text
    assert text.startswith("engine: ")
    assert str(LOG) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "no space left at /there; free some"),
        (errno.EROFS, "cannot write /there"),
        (errno.EACCES, "cannot write /there"),
        (errno.EIO, "/there: "),
    ],
)
def test_a_fault_of_the_file_system_names_the_place(number: int, expected: str) -> None:
    assert expected in str(from_os_error(OSError(number, "why"), Path("/there")))


FOR_ALL_TESTS = {"dev", "engine", "tools", "browser", "compiler", "clients", "aider", "node clients", "keys", "secrets"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", set()),
        ("--help", set()),
        ("status --json", set()),
        ("down", set()),
        ("up --help", set()),
        ("up --models tiny", {"engine", "tools", "keys", "secrets"}),
        ("up --profile small", {"tools", "keys", "secrets"}),  # refused on a machine without a card
        ("test -k x", FOR_ALL_TESTS),
        ("test --help", FOR_ALL_TESTS),
        ("test -m cuda", {"dev", "engine", "compiler"}),
        ("test tests/unit", {"dev", "compiler"}),  # Chromium was fetched for the pure tests, too
        ("test -x ./tests/unit/test_plan.py::test_x tests/unit", {"dev", "compiler"}),
        ("test tests/unit tests/integration", FOR_ALL_TESTS),
    ],
)
def test_a_command_gets_what_it_needs_and_no_more(
    line: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "find", lambda: None)
    assert needs(line.split(), tmp_path).parts == expected
