"""A mistake, or a file of somebody else, ends a command with one line and its exit code."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

import pytest

from roundhouse.cli import main
from roundhouse.cli.told import Told
from roundhouse.config import paths
from roundhouse.deploy.setup.errors import foreign


def refused(place: Path) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file that belongs to another user than this one."""
    if os.getuid() != 0:
        return Path("/etc/passwd")
    file = tmp_path / ".env"
    file.touch()
    os.chown(file, 65534, 65534)
    return file


def test_a_file_of_another_user_is_said_with_its_owner_and_a_remedy(theirs: Path) -> None:
    owner = pwd.getpwuid(theirs.stat().st_uid).pw_name
    text = foreign(refused(theirs))
    assert text.startswith(f"{theirs}: Permission denied; {theirs} belongs to {owner}: run this as {owner}, or")
    assert "chown" in text
    inside = foreign(refused(theirs.parent / "gone" / "x"))
    assert inside.startswith(f"{theirs.parent / 'gone' / 'x'}: Permission denied")


def test_a_folder_of_ones_own_that_cannot_be_written_has_another_remedy(tmp_path: Path) -> None:
    assert "set ROUNDHOUSE_HOME to a folder of yours" in foreign(refused(tmp_path / "run"))


@pytest.mark.parametrize("command", ["env", "keys list", "plan", "db backup x"])
def test_every_command_says_it_in_one_line(
    command: str, theirs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``sudo up``, then ``env`` as oneself: a traceback."""

    def load() -> None:
        raise refused(theirs)

    monkeypatch.setattr(paths, "load_env_file", load)
    with pytest.raises(SystemExit) as end:
        main.main(command.split())
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n")) == (1, 1)
    assert said.startswith(f"roundhouse: {theirs}: Permission denied")


@pytest.mark.parametrize("number", [2, 15, 1])
def test_a_command_that_was_told_to_end_has_the_signals_exit_code(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise Told(number)

    monkeypatch.setattr(paths, "load_env_file", load)
    with pytest.raises(SystemExit) as end:
        main.main(["env"])
    assert end.value.code == 128 + number
