"""Runs pip and other long commands: all output to a log, the gist to the board, nothing left running."""

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from .errors import SetupError, from_os_error, from_pip
from .progress import Board

STOP_S = 10.0  # pip cleans its temporary folders on SIGINT; then it is killed
KEPT_LINES = 200


class Children:
    """The commands that run now; `stop` ends them all and forbids new ones."""

    def __init__(self, lock_fd: int) -> None:
        self._lock_fd = lock_fd
        self._running: set[subprocess.Popen[str]] = set()
        self._mutex = threading.Lock()
        self.stopped = False

    def start(self, argv: Sequence[str], env: dict[str, str]) -> "subprocess.Popen[str]":
        """Start `argv` in a group of its own, output merged into one pipe.

        The child inherits the set-up's file lock: should this process be killed, the lock is held until the
        orphan has ended too, so that no second set-up works on the same folder beside it.
        """
        with self._mutex:
            if self.stopped:
                raise SetupError("stopped")
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=env,
                pass_fds=(self._lock_fd,),
                start_new_session=True,
            )
            self._running.add(child)
            return child

    def ended(self, child: "subprocess.Popen[str]") -> None:
        """`child` was waited for."""
        with self._mutex:
            self._running.discard(child)

    def stop(self) -> None:
        """End every command and wait for it."""
        with self._mutex:
            self.stopped = True
            running = list(self._running)
        for child in running:
            _signal_group(child, signal.SIGINT)
        for child in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOP_S)
            _signal_group(child, signal.SIGKILL)


class Part:
    """One thing being made: its name on the board, its log, its commands."""

    def __init__(self, name: str, log: Path, board: Board, children: Children) -> None:
        self.name = name
        self.log = log
        self.board = board
        self._children = children

    def show(self, text: str) -> None:
        """The board says `text` for this part."""
        self.board.part(self.name, lambda: text)

    def run(
        self,
        argv: Sequence[str],
        *,
        meter: "Meter | None" = None,
        check: bool = True,
        add_path: Path | None = None,
        extra: dict[str, str] | None = None,
    ) -> int:
        """Run `argv` to its end and return its exit code; a failing one raises if `check`.

        `add_path` stands first on its PATH, `extra` is added to its environment.
        """
        env = {**environment(), **(extra or {})}
        if add_path:
            env["PATH"] = f"{add_path}{os.pathsep}{env.get('PATH', os.defpath)}"
        tail: list[str] = []
        try:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"$ {' '.join(argv)}\n")
                child = self._children.start(argv, env)
                assert child.stdout is not None
                with child.stdout as output:
                    for line in output:
                        log.write(line)
                        tail = [*tail[-KEPT_LINES:], line.rstrip()]
                        if meter:
                            meter.feed(line)
                code = child.wait()
                self._children.ended(child)
        except OSError as error:
            raise from_os_error(error, self.log) from error
        if code != 0 and check:
            raise from_pip([line for line in tail if not line.startswith("WARNING: Location")], self.log, self.name)
        return code

    def pip(self, python: Path, arguments: Sequence[str], *, total: int = 0, check: bool = True) -> int:
        """Run pip of the environment of `python`; `total`: how many packages the lock names."""
        meter = Meter(total, python.parent.parent)
        self.board.part(self.name, meter.text)
        return self.run([str(python), "-m", "pip", *arguments], meter=meter, check=check)


class Meter:
    """Turns pip's output into "42/130 packages, downloading x (12 MB)"."""

    def __init__(self, total: int, environment: Path) -> None:
        self._total = total
        self._seen: set[str] = set()
        self._now = ""
        self._installing = 0
        self._environment = environment

    def feed(self, line: str) -> None:
        """One line of pip's output."""
        text = line.strip()
        if text.startswith("Ignoring "):
            self._total = max(0, self._total - 1)
        elif match := re.match(r"(?:Collecting|Requirement already satisfied:|Processing) (\S+)", text):
            self._seen.add(match[1])
            self._now = ""
        elif match := re.match(r"(?:Downloading|Using cached) (\S+) \(([^)]+)\)", text):
            self._now = f", {match[1].split('/')[-1].split('-')[0]} ({match[2]})"
        elif text.startswith("Installing collected packages:"):
            self._installing = text.count(",") + 1

    def text(self) -> str:
        """Where pip is now."""
        if self._installing > 1:
            there = sum(1 for _ in self._environment.glob("lib/python*/site-packages/*.dist-info"))
            return f"installed {there}/{max(there, self._total)} packages"
        if not self._total:
            return f"fetching{self._now.replace(',', '')}"
        return f"fetched {min(len(self._seen), self._total)}/{self._total} packages{self._now}"


def environment() -> dict[str, str]:
    """This environment without what would lead pip astray; the user's index settings stay."""
    astray = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    clean = {name: value for name, value in os.environ.items() if name not in astray}
    fixed = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off"}
    return {**clean, **fixed, "PIP_ROOT_USER_ACTION": "ignore", "PYTHONUNBUFFERED": "1"}


def _signal_group(child: "subprocess.Popen[str]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
