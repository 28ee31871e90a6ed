"""One virtual environment: made, repaired after an interruption, and known to be complete."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .pip import Part
from .pythons import VERSIONS, Python

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
LAYOUT = "1"  # raise it when an environment made by an older version of this package must be made anew


@dataclass(frozen=True)
class Environment:
    """The environment in `folder`."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        """Its site-packages (the environment exists)."""
        return next(self.folder.glob("lib/python3*/site-packages"))

    def complete(self, name: str, locks: tuple[str, ...]) -> bool:
        """Was `name` finished here, from these locks as they are now? Costs a millisecond."""
        try:
            stamp = self._stamp(name).read_text(encoding="utf-8")
        except OSError:
            return False
        return stamp == self._key(locks) and os.access(self.python, os.X_OK)

    def finish(self, name: str, locks: tuple[str, ...]) -> None:
        """Note that `name` is complete: the last thing that is written."""
        stamp = self._stamp(name)
        fresh = stamp.with_suffix(".new")
        fresh.write_text(self._key(locks), encoding="utf-8")
        os.replace(fresh, stamp)

    def create(self, part: Part, candidates: list[Python]) -> Python:
        """Make the environment, or make one usable that an interruption left; returns the Python it has."""
        part.show("making the environment")
        wanted = [python.version[:2] for python in candidates]
        there = self._interpreter()
        if there is None or there.version[:2] not in wanted or self._was_moved():
            there = candidates[0]
            part.run([there.executable, "-m", "venv", "--clear", str(self.folder)])
        elif self._drop_half_installed() or not list(self.site.glob("pip-*.dist-info")):
            part.run([there.executable, "-m", "venv", str(self.folder)])
        return there

    def install(self, part: Part, lock: str) -> None:
        """Install exactly what `lock` names, each package checked against its hash."""
        path = REQUIREMENTS / lock
        total = sum(1 for line in path.read_text(encoding="utf-8").splitlines() if "==" in line[:80].split(" ")[0])
        quick = ["--no-deps", "--no-compile", "--no-warn-script-location"]
        part.pip(self.python, ["install", *quick, "--require-hashes", "-r", str(path)], total=total)

    def byte_compile(self, part: Part) -> None:
        """Write the .pyc files with all cores; without them every start takes twice as long."""
        part.show("byte-compiling")
        part.run([str(self.python), "-m", "compileall", "-q", "-j0", str(self.site)], check=False)

    def has(self, project: str, version: str) -> bool:
        """Is this version of `project` installed, and wholly?"""
        return any(
            _whole(info) for info in self.folder.glob(f"lib/python3*/site-packages/{project}-{version}.dist-info")
        )

    def _interpreter(self) -> Python | None:
        try:
            done = subprocess.run(
                [self.python, "-I", "-c", "import sys; print(*sys.version_info[:3], sys._base_executable)"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        except OSError:
            return None
        if done.returncode != 0:
            return None
        major, minor, patch, executable = done.stdout.split(maxsplit=3)
        python = Python((int(major), int(minor), int(patch)), executable.strip())
        return python if python.version[:2] in VERSIONS else None

    def _was_moved(self) -> bool:
        """Scripts in an environment name its folder: one that was moved is made anew."""
        config = (self.folder / "pyvenv.cfg").read_text(encoding="utf-8")
        made_for = [line.split()[-1] for line in config.splitlines() if line.startswith("command =")]
        return bool(made_for) and Path(made_for[0]).resolve() != self.folder.resolve()

    def _drop_half_installed(self) -> bool:
        """Forget packages whose installation was cut off, so that pip installs them again."""
        half = [info for info in self.site.glob("*.dist-info") if not _whole(info)]
        for left in [*half, *self.site.glob("~*")]:
            shutil.rmtree(left, ignore_errors=True)
        return any(info.name.startswith("pip-") for info in half)

    def _stamp(self, name: str) -> Path:
        return self.folder / f"roundhouse-{name}.stamp"

    def _key(self, locks: tuple[str, ...]) -> str:
        digest = hashlib.sha256(f"{LAYOUT} {self.folder.resolve()}".encode())
        for lock in locks:
            digest.update((REQUIREMENTS / lock).read_bytes())
        return digest.hexdigest() + "\n"


def _whole(info: Path) -> bool:
    """Installers write RECORD last, with their own note INSTALLER in it, which a wheel's RECORD lacks."""
    try:
        return f"{info.name}/INSTALLER," in (info / "RECORD").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
