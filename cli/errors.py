"""How a command ends when it cannot do what it was asked: one line, one exit code."""

from __future__ import annotations

FAILED, USAGE, NOT_RUNNING, REFUSED = 1, 2, 3, 4


class CliError(Exception):
    """The text is for the user; ``code`` is the process's exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        self.code = code
        super().__init__(text)


class NotRunning(CliError):
    """No Roundhouse runs with this home."""

    def __init__(self) -> None:
        super().__init__("not running; start it with 'roundhouse up'", NOT_RUNNING)
