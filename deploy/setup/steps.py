"""What is missing, and making it: the parts side by side, one set-up at a time, repaired when run again."""

import fcntl
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import browser as browsers
from . import choice, env_file, fitness, hub
from . import compiler as compilers
from . import engine as engines
from . import tools as programs
from .card import Cards
from .choice import Kind
from .database import Parts
from .environment import Environment
from .errors import SetupError, from_os_error
from .jobs import side_by_side
from .pip import Children, Part
from .progress import Board
from .pythons import Python, candidates, probe

PROXY_LOCKS = ("proxy.txt",)
DEV_LOCKS = ("proxy.txt", "dev.txt")
GB = 1_000_000_000
SPACE = {
    "proxy": 1.2 * GB,
    Kind.CPU.value: 5 * GB,
    Kind.CUDA.value: 16 * GB,
    "keys": 0.5 * GB,
    "browser": 0.7 * GB,
}  # measured, with room for downloads


@dataclass(frozen=True)
class OnCard:
    """The engines are to run on the machine's card, with the YAML `config`; `weights`: and with real models."""

    config: Path
    weights: bool


def ensure(
    *,
    proxy: bool = False,
    engine: Kind | None = None,
    on_card: OnCard | None = None,
    dev: bool = False,
    tools: bool = False,
    keys: bool = False,
    browser: bool = False,
    compiler: bool = False,
    secrets: bool = False,
    project_root: Path | None = None,
    env_path: Path | None = None,
) -> None:
    """Make those of the parts that are not there yet, under `project_root` (default: the checkout).

    Outside a checkout `project_root` is the home. The secrets are in `env_path`, by default its `.env`. With `on_card`
    a machine that cannot run vLLM on its card is refused before anything is made.

    Returns within milliseconds when all are. Safe to call from several processes at once, and to interrupt
    anywhere. Raises SetupError, whose text is for the user.
    """
    root = (project_root or Path(__file__).resolve().parents[2]).resolve()
    setup = Setup(root, env_path, engine or Kind.CPU)
    wanted = [
        name
        for name, asked in (
            ("proxy", proxy),
            ("dev", dev),
            ("engine", engine is not None),
            ("tools", tools),
            ("keys", keys),
            ("browser", browser),
            ("compiler", compiler),
            ("secrets", secrets),
        )
        if asked and not setup.complete(name)
    ]
    cards = setup.require_fit(wanted, on_card) if on_card else None
    if wanted:
        try:
            with _alone(root) as lock_fd:
                setup.make([name for name in wanted if not setup.complete(name)], lock_fd)
        except OSError as error:
            raise from_os_error(error, root) from error
    if cards:
        choice.remember(root, cards)


class Setup:
    """The parts under one project root."""

    def __init__(self, root: Path, env_path: Path | None = None, kind: Kind = Kind.CPU) -> None:
        self.root = root
        self.kind = kind
        self.proxy = Environment(root / ".venv")
        self.engine = Environment(root / kind.value)
        self.env_file = env_path or root / ".env"
        self._helper = threading.Lock()

    def complete(self, name: str) -> bool:
        """Is this part there, as the locks say?"""
        if name == "proxy":
            return self._installed() or self.proxy.complete("proxy", PROXY_LOCKS)
        if name == "dev":
            return self.proxy.complete("dev", DEV_LOCKS)
        if name == "engine":
            own = os.environ.get("ROUNDHOUSE_ENGINE_PYTHON")
            return bool(own) or self.engine.complete("engine", engines.LOCKS[self.kind])
        if name == "tools":
            return programs.complete(self.root)
        if name == "keys":
            return not env_file.keys_are_on(self.env_file) or self._database().complete(self._own_postgres())
        if name == "browser":
            return browsers.complete(programs.folder(self.root))
        if name == "compiler":
            return compilers.complete(programs.folder(self.root))
        return not env_file.missing(self.env_file)

    def require_fit(self, names: list[str], on_card: OnCard) -> Cards | None:
        """The cards of a machine that can run vLLM for CUDA once `names` are made; None where the user's own vLLM runs.

        What is complete is looked at too: drivers are updated, compilers removed, disks filled.

        Raises:
            SetupError: it cannot: the card does not answer, or Unfit with every fault.
        """
        if os.environ.get("ROUNDHOUSE_ENGINE_PYTHON"):
            return None
        cards = choice.require_card(self.root)
        if cards is None:
            return None
        python = engines.for_cuda(candidates())[0] if "engine" in names else probe(str(self.engine.python))
        needs, weights = [(self.root, self._space(names))], 0
        if on_card.weights and not hub.tiny_was_chosen(self._home()):
            weights, cache = hub.total(on_card.config), hub.cache(partial(env_file.setting, self.env_file))
            needs.append((cache, hub.missing(on_card.config, cache)))
        machine = fitness.gather(cards, python, needs, weights)
        if found := fitness.faults(machine):
            raise fitness.Unfit(found)
        if "engine" in names:
            for note in fitness.notes(machine):
                print(f"roundhouse: note: {note}", file=sys.stderr)
        return cards

    def make(self, names: list[str], lock_fd: int) -> None:
        """Make the parts `names`; the first failure ends the others."""
        if "secrets" in names:
            env_file.complete(self.env_file)
        if not set(names) - {"secrets"}:
            return
        self._check_space(names)
        log = self._log_folder() / f"setup-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        children = Children(lock_fd)
        with Board() as board:

            def part(name: str) -> Part:
                return Part(name, Path(f"{log}-{name}.log"), board, children)

            pythons = candidates()
            jobs: dict[str, Callable[[], None]] = {}
            if {"proxy", "dev"} & set(names):
                jobs["proxy"] = lambda: self._make_proxy(part("proxy"), pythons, "dev" in names)
            if "engine" in names:
                jobs["engine"] = lambda: self._make_engine(part("engine"), pythons)
            if "browser" in names:
                jobs["browser"] = lambda: browsers.make(part("browser"), programs.folder(self.root))
            if "compiler" in names:
                jobs["compiler"] = lambda: compilers.make(part("compiler"), programs.folder(self.root))
            side_by_side(jobs, board, children)
            jobs = {}
            if "tools" in names:
                jobs["redis"] = lambda: programs.make(part("redis"), self._pip(part("redis"), pythons), self.root)
            if "keys" in names:
                jobs["keys"] = lambda: self._make_keys(part("keys"), pythons)
            side_by_side(jobs, board, children)

    def _make_proxy(self, part: Part, pythons: list[Python], dev: bool) -> None:
        if not self.proxy.complete("proxy", PROXY_LOCKS):
            self.proxy.create(part, pythons)
            self.proxy.install(part, "proxy.txt")
            self._link()
            self.proxy.byte_compile(part)
            self.proxy.finish("proxy", PROXY_LOCKS)
        if dev:
            self.proxy.install(part, "dev.txt")
            self.proxy.byte_compile(part)
            self.proxy.finish("dev", DEV_LOCKS)

    def _make_engine(self, part: Part, pythons: list[Python]) -> None:
        engines.make(part, self.engine, self.kind, pythons, programs.folder(self.root) / "wheels")
        self.engine.finish("engine", engines.LOCKS[self.kind])

    def _make_keys(self, part: Part, pythons: list[Python]) -> None:
        self._database().make(part, self._pip(part, pythons), self._own_postgres())

    def _database(self) -> Parts:
        python = Path(sys.executable) if self._installed() else self.proxy.python
        return Parts(programs.folder(self.root), python)

    def _own_postgres(self) -> bool:
        return not env_file.setting(self.env_file, "DATABASE_URL")

    def _pip(self, part: Part, pythons: list[Python]) -> Path:
        """A Python with pip, to fetch programs with."""
        for made in (self.proxy, self.engine):
            if made.python.exists():
                return made.python
        helper = Environment(programs.folder(self.root) / "pip")
        with self._helper:
            helper.create(part, pythons)
        return helper.python

    def _link(self) -> None:
        """Put the checkout on the environment's path, and the command beside its Python."""
        (self.proxy.site / "roundhouse.pth").write_text(f"{self.root / 'src'}\n", encoding="utf-8")
        command = self.proxy.folder / "bin" / "roundhouse"
        command.write_text(f'#!/bin/sh\nexec "{self.proxy.python}" -m roundhouse.cli.main "$@"\n', encoding="utf-8")
        command.chmod(0o755)

    def _installed(self) -> bool:
        """Outside a checkout the environment that runs this is the proxy's."""
        return not (self.root / "src" / "roundhouse").is_dir()

    def _home(self) -> Path:
        return Path(env_file.setting(self.env_file, "ROUNDHOUSE_HOME") or self.root / ".roundhouse").expanduser()

    def _log_folder(self) -> Path:
        home = self._home()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = home / "log"
        log.mkdir(mode=0o700, exist_ok=True)
        return log

    def _space(self, names: list[str]) -> float:
        """Bytes that the parts `names` take. A part that was begun is not counted."""
        needed = 0.0
        if {"proxy", "dev"} & set(names) and not self.proxy.folder.exists():
            needed += SPACE["proxy"]
        if "engine" in names and not self.engine.folder.exists():
            needed += SPACE[self.kind.value]
        if "keys" in names and not (programs.folder(self.root) / "prisma").exists():
            needed += SPACE["keys"]
        if "browser" in names:
            needed += SPACE["browser"]
        return needed

    def _check_space(self, names: list[str]) -> None:
        """Better told now than after ten minutes."""
        needed = self._space(names)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise SetupError(
                f"no space left for the set-up: it needs about {needed / GB:.0f} GB at {self.root}, "
                f"{free / GB:.1f} GB are free; free some, then run the same command again"
            )


@contextmanager
def _alone(root: Path) -> Iterator[int]:
    """Hold the set-up's lock, waiting for another set-up; the kernel gives it back whatever happens."""
    folder = programs.folder(root)
    folder.mkdir(exist_ok=True)
    with (folder / "setup.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                "roundhouse: another set-up is at work here; waiting for it to end",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
