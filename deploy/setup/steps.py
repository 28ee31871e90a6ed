"""What is missing, and making it: the parts side by side, one set-up at a time, repaired when run again."""

import fcntl
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import browser as browsers
from . import choice, clients, env_file, fitness, hub
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


@dataclass(frozen=True)
class OnCard:
    """The engines are to run on the machine's card, with the YAML `config`; `weights`: and with real models."""

    config: Path
    weights: bool


def ensure(
    parts: Collection[str],
    *,
    engine: Kind = Kind.CPU,
    on_card: OnCard | None = None,
    project_root: Path | None = None,
    env_path: Path | None = None,
) -> None:
    """Make those of the `parts` (names in PARTS) that are not there yet, under `project_root` (default: the checkout).

    Outside a checkout `project_root` is the home. The secrets are in `env_path`, by default its `.env`. With `on_card`
    a machine that cannot run vLLM on its card is refused before anything is made.

    Returns within milliseconds when all are. Safe to call from several processes at once, and to interrupt
    anywhere. Raises SetupError, whose text is for the user.
    """
    root = (project_root or Path(__file__).resolve().parents[2]).resolve()
    setup = Setup(root, env_path, engine)
    wanted = [name for name in PARTS if name in parts and not setup.complete(name)]
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
        self.tools = programs.folder(root)
        self.env_file = env_path or root / ".env"
        self._helper = threading.Lock()

    def complete(self, name: str) -> bool:
        """Is this part there, as the locks say?"""
        return PARTS[name].complete(self)

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
        if not any(PARTS[name].make for name in names):
            return
        self._check_space(names)
        log = self._log_folder() / f"setup-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        children = Children(lock_fd)
        with Board() as board:

            def part(name: str) -> Part:
                return Part(name, Path(f"{log}-{name}.log"), board, children)

            pythons = candidates()
            for late in (False, True):
                lanes: dict[str, list[Recipe]] = {}
                for name in names:
                    if PARTS[name].make and PARTS[name].late == late:
                        lanes.setdefault(PARTS[name].lane or name, []).append(PARTS[name])
                jobs: dict[str, Callable[[], None]] = {}
                for lane, recipes in lanes.items():
                    jobs[lane] = partial(self._follow, recipes, part(lane), pythons)
                side_by_side(jobs, board, children)

    def _follow(self, recipes: list["Recipe"], part: Part, pythons: list[Python]) -> None:
        for recipe in recipes:
            if recipe.make:
                recipe.make(self, part, pythons)

    def proxy_complete(self) -> bool:
        """Is the gateway's environment there?"""
        return self._installed() or self.proxy.complete("proxy", PROXY_LOCKS)

    def make_proxy(self, part: Part, pythons: list[Python]) -> None:
        """Make the gateway's environment."""
        self.proxy.create(part, pythons)
        self.proxy.install(part, "proxy.txt")
        self._link()
        self.proxy.byte_compile(part)
        self.proxy.finish("proxy", PROXY_LOCKS)

    def make_dev(self, part: Part, pythons: list[Python]) -> None:
        """Put what the tests need into the gateway's environment."""
        if not self.proxy_complete():
            self.make_proxy(part, pythons)
        self.proxy.install(part, "dev.txt")
        self.proxy.byte_compile(part)
        self.proxy.finish("dev", DEV_LOCKS)

    def engine_complete(self) -> bool:
        """Is vLLM there, or a Python of the user's that has it?"""
        own = os.environ.get("ROUNDHOUSE_ENGINE_PYTHON")
        return bool(own) or self.engine.complete("engine", engines.LOCKS[self.kind])

    def make_engine(self, part: Part, pythons: list[Python]) -> None:
        """Make vLLM's environment."""
        engines.make(part, self.engine, self.kind, pythons, self.tools / "wheels")
        self.engine.finish("engine", engines.LOCKS[self.kind])

    def keys_complete(self) -> bool:
        """Is there what virtual keys need, or are there to be none?"""
        return not env_file.keys_are_on(self.env_file) or self.database().complete(self._own_postgres())

    def make_keys(self, part: Part, pythons: list[Python]) -> None:
        """Fetch and make what virtual keys need."""
        self.database().make(part, self.pip(part, pythons), self._own_postgres())

    def make_node_clients(self, part: Part, pythons: list[Python]) -> None:
        """Install the clients for Node."""
        clients.make_node(part, self.root, lambda: self.database().fetch_node(part, self.pip(part, pythons)))

    def database(self) -> Parts:
        """What virtual keys need."""
        return Parts(self.tools, Path(sys.executable) if self._installed() else self.proxy.python)

    def _own_postgres(self) -> bool:
        return not env_file.setting(self.env_file, "DATABASE_URL")

    def pip(self, part: Part, pythons: list[Python]) -> Path:
        """A Python with pip, to fetch programs with."""
        for made in (self.proxy, self.engine):
            if made.python.exists():
                return made.python
        helper = Environment(self.tools / "pip")
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
        return sum(PARTS[name].size_gb(self) * GB for name in names if not PARTS[name].begun(self))

    def _check_space(self, names: list[str]) -> None:
        """Better told now than after ten minutes."""
        needed = self._space(names)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise SetupError(
                f"no space left for the set-up: it needs about {needed / GB:.0f} GB at {self.root}, "
                f"{free / GB:.1f} GB are free; free some, then run the same command again"
            )


@dataclass(frozen=True)
class Recipe:
    """How a part is known to be complete, and made; without `make` it is made before all others.

    Parts of one `lane` are made one after the other, lanes side by side; `late` ones once there is an environment with
    pip. `size_gb`: what it takes, measured, with room for downloads, unless it was `begun`.
    """

    complete: Callable[[Setup], bool]
    make: Callable[[Setup, Part, list[Python]], None] | None
    lane: str = ""
    late: bool = False
    size_gb: Callable[[Setup], float] = lambda setup: 0.0
    begun: Callable[[Setup], bool] = lambda setup: False


PARTS: dict[str, Recipe] = {
    "proxy": Recipe(
        Setup.proxy_complete,
        Setup.make_proxy,
        "proxy",
        size_gb=lambda it: 1.2,
        begun=lambda it: it.proxy.folder.exists(),
    ),
    "dev": Recipe(lambda it: it.proxy.complete("dev", DEV_LOCKS), Setup.make_dev, "proxy"),
    "engine": Recipe(
        Setup.engine_complete,
        Setup.make_engine,
        size_gb=lambda it: 5 if it.kind is Kind.CPU else 16,
        begun=lambda it: it.engine.folder.exists(),
    ),
    "browser": Recipe(
        lambda it: browsers.complete(it.tools),
        lambda it, part, _: browsers.make(part, it.tools),
        size_gb=lambda it: 0.7,
    ),
    "compiler": Recipe(lambda it: compilers.complete(it.tools), lambda it, part, _: compilers.make(part, it.tools)),
    "clients": Recipe(
        lambda it: clients.complete(it.root),
        lambda it, part, pythons: clients.make(part, it.root, pythons),
        size_gb=lambda it: 0.6,
    ),
    "aider": Recipe(
        lambda it: clients.aider_complete(it.root),
        lambda it, part, pythons: clients.make_aider(part, it.root, pythons),
        size_gb=lambda it: 0.9,
    ),
    "tools": Recipe(
        lambda it: programs.complete(it.root),
        lambda it, part, pythons: programs.make(part, it.pip(part, pythons), it.root),
        "redis",
        late=True,
    ),
    "keys": Recipe(
        Setup.keys_complete,
        Setup.make_keys,
        late=True,
        size_gb=lambda it: 0.5,
        begun=lambda it: (it.tools / "prisma").exists(),
    ),
    "node clients": Recipe(
        lambda it: clients.node_complete(it.root), Setup.make_node_clients, late=True, size_gb=lambda it: 0.1
    ),
    "secrets": Recipe(lambda it: not env_file.missing(it.env_file), None),
}
"""The parts of the set-up: this is the only list of them. `command.NEEDS` says which command needs which."""


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
