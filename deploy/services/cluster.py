"""The local PostgreSQL's data: where it is, whose it is, how it is made and how it is set.

PostgreSQL refuses to run as root. Started by root, the server runs as an unprivileged account, which cannot enter
a home that is root's alone: then the data is under /var/lib/roundhouse.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from roundhouse.config import paths
from roundhouse.deploy.services import keep as service
from roundhouse.deploy.setup.database import Parts
from roundhouse.deploy.setup.tools import folder as tools_folder

ROOTS_PLACE = Path("/var/lib/roundhouse")
ACCOUNTS = ("roundhouse", "postgres", "nobody")
"""Whom the server runs as when we are root: the first that there is."""

NAME = "roundhouse"
"""The database, and the role that owns it, which is no superuser."""

MARK = "database.id"
"""The file in a home, and in the folder of its database elsewhere, by which the two know each other."""

HOME = "home"
"""The file in such a folder that says whose it is."""

PORT = 5432
"""Only part of the socket's name: the server does not listen on the network."""

SETTINGS = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "work_mem": "4MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum_max_workers": "1",
    "max_parallel_workers": "0",
    "max_worker_processes": "4",
    "io_method": "sync",  # its workers cost memory, and one user's keys need no parallel reading
    "jit": "off",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # a statement may hold a secret
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
    "log_line_prefix": "'postgres: '",
    "update_process_title": "off",
}


class ClusterError(Exception):
    """The data cannot be used as it is; the text says what to do."""


@dataclass(frozen=True)
class Account:
    """Whom the server runs as, where that is not who we are."""

    name: str
    uid: int
    gid: int

    @property
    def ids(self) -> tuple[int, int]:
        """Account and group."""
        return self.uid, self.gid

    def as_user(self) -> dict[str, Any]:
        """The arguments of ``Popen`` that make a child run so."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


@cache
def account() -> Account | None:
    """The unprivileged account, when we are root; else None. Raises ClusterError where there is none."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ClusterError(f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} is there")


def place() -> Path:
    """The folder of all that belongs to this home's database; made."""
    if account() is None:
        return _folder(paths.home() / "postgres", 0o700, None)
    _folder(ROOTS_PLACE, 0o755, None)
    return _folder(_place_of_root(), 0o711, None)


def _place_of_root() -> Path:
    return ROOTS_PLACE / hashlib.sha256(os.fsencode(paths.home())).hexdigest()[:12]


def data() -> Path:
    """The server's data folder, which may not be there yet."""
    return place() / "data"


def elsewhere() -> Path | None:
    """The data of this home's database where it is there, and not in the home."""
    with suppress(ClusterError):
        if account() is not None and _place_of_root().joinpath("data").is_dir():
            return _place_of_root()
    return None


def socket_folder() -> Path:
    """The folder of the server's socket; made."""
    if account() is None:
        return _folder(paths.socket_file("postgres", room=len(f"/.s.PGSQL.{PORT}.lock")), 0o700, None)
    return _folder(place() / "socket", 0o700, account())


def socket() -> Path:
    """The server's socket."""
    return socket_folder() / f".s.PGSQL.{PORT}"


def url() -> str:
    """The address of the local database, password included. Raises ClusterError before the first start."""
    try:
        password = _password_file().read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ClusterError("the local database has not been made yet; './roundhouse up' makes it") from None
    return f"postgresql://{NAME}:{quote(password, safe='')}@{quote(str(socket_folder()), safe='')}:{PORT}/{NAME}"


def parts() -> Parts:
    """What the set-up has fetched for the database."""
    if not paths.in_checkout():
        return Parts(tools_folder(paths.home()), Path(sys.executable))
    root = paths.project_root()
    return Parts(tools_folder(root), root / ".venv" / "bin" / "python")


def programs() -> Path:
    """The folder of PostgreSQL's programs, where the server's account can run them.

    Raises:
        ClusterError: they have not been fetched.
    """
    fetched = parts().postgres
    if not os.access(fetched / "postgres", os.X_OK):
        raise ClusterError("PostgreSQL has not been fetched; './roundhouse up' does it")
    if account() is None or _version(fetched) is not None:
        return fetched
    package = fetched.parents[1]  # the account cannot enter the checkout: give it a copy of its own
    digest = hashlib.sha256((fetched / "postgres").read_bytes()).hexdigest()[:12]
    copy = _folder(ROOTS_PLACE, 0o755, None) / f"programs-{digest}"
    if not copy.exists():
        fresh = copy.with_suffix(f".{os.getpid()}")
        for part in (Path(package.name) / fetched.parent.name, Path(f"{package.name}.libs")):
            shutil.copytree(package.parent / part, fresh / part, ignore=shutil.ignore_patterns("include", "*.a"))
        _let_run(fresh)
        try:
            os.rename(fresh, copy)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return copy / package.name / fetched.parent.name / "bin"


def prepare(bin_: Path) -> None:
    """Have a cluster in ``data()``, with our settings, a role, a database, and a password that we know.

    Raises:
        ClusterError: it was made by another major version, or cannot be made.
    """
    claim()
    there = data()
    if not there.exists():
        _make(bin_)
    made_by, ours = (there / "PG_VERSION").read_text().strip(), _version(bin_)
    if made_by != ours:
        raise ClusterError(
            f"the data in {there} was made by PostgreSQL {made_by}, and this is {ours}. Move that folder away, start, "
            "and restore a backup ('roundhouse db restore FILE') that the earlier version of Roundhouse has made"
        )
    _write_settings(there)
    if not _password_file().exists():
        _set_password(bin_)


def claim() -> Path | None:
    """Have the database's folder be this home's, where it does not lie in it; the server must not run.

    A folder that a home of the same name has left is set aside, for it holds keys that nobody expects to be valid.
    One without a mark is taken over: an earlier release has made it. Returns where something was set aside.
    """
    if account() is None:
        return None
    here, there, aside = paths.home() / MARK, place() / MARK, None
    mark = _read(here)
    if data().exists() and there.exists() and _read(there) != mark:
        aside = place().with_name(f"{place().name}.left-{time.strftime('%Y%m%d-%H%M%S')}")
        os.rename(place(), aside)
        print(f"postgres: the database of an earlier {paths.home()} was set aside: {aside} ('db where')", flush=True)
    if mark is None:
        mark = secrets.token_hex(16)
        service.write_private(here, mark)
    service.write_private(place() / MARK, mark)
    service.write_private(place() / HOME, str(paths.home()))
    return aside


def left_behind() -> list[tuple[Path, str | None]]:
    """Folders of databases whose home is gone, or is another by now; each with the home's path where it is known."""
    if account() is None or not ROOTS_PLACE.is_dir():
        return []
    found = []
    for folder in sorted(ROOTS_PLACE.iterdir()):
        if not (folder / "data").is_dir() or _has_server(folder / "data"):
            continue
        home, mark = _read(folder / HOME), _read(folder / MARK)
        if home is None or mark is None or _read(Path(home) / MARK) != mark:
            found.append((folder, home))
    return found


def discard() -> None:
    """Remove everything of this home's database; the server must not run."""
    shutil.rmtree(place(), ignore_errors=True)


def run(argv: Sequence[str | Path], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs as the server's account; raises ClusterError with its words if it fails."""
    who = account()
    done = subprocess.run(
        argv,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        **(who.as_user() if who else {}),
        **more,
    )
    if done.returncode != 0:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = next((line for line in words if "No space left" in line), words[-1] if words else "no output")
        raise ClusterError(f"{Path(argv[0]).name} failed (code {done.returncode}): {reason.strip()}")
    return done


def _make(bin_: Path) -> None:
    """Make the cluster beside its place and move it there: cut off anywhere, the next start makes it anew."""
    fresh, word = place() / "data.new", place() / "data.password"
    shutil.rmtree(fresh, ignore_errors=True)
    _folder(fresh, 0o700, account())
    service.write_private(word, secrets.token_urlsafe(32), _owner())  # of the superuser, whom nobody can be
    try:
        options = ["-A", "scram-sha-256", "--pwfile", str(word), "--data-checksums", "-E", "UTF8", "-U", "postgres"]
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        run([bin_ / "initdb", "-D", fresh, *options, *locale])
        _write_settings(fresh)
        _alone(bin_, fresh, f"CREATE ROLE {NAME} LOGIN", f"CREATE DATABASE {NAME} OWNER {NAME}")
        _password_file().unlink(missing_ok=True)
        os.rename(fresh, data())
    finally:
        word.unlink(missing_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)


def _set_password(bin_: Path) -> None:
    password = secrets.token_urlsafe(32)
    _alone(bin_, data(), f"ALTER ROLE {NAME} PASSWORD '{password}'")
    service.write_private(_password_file(), password + "\n")


def _alone(bin_: Path, where: Path, *statements: str) -> None:
    """Run statements as the superuser in single-user mode, the server being down."""
    text = "".join(f"{statement};\n" for statement in statements)
    done = run([bin_ / "postgres", "--single", "-j", "-D", where, "postgres"], input=text.replace("\n", "\n\n"))
    if "ERROR:" in done.stderr or "FATAL:" in done.stderr:
        raise ClusterError(f"the database could not be set up: {done.stderr.strip().splitlines()[-1]}")


def _write_settings(where: Path) -> None:
    settings = {**SETTINGS, "unix_socket_directories": f"'{socket_folder()}'", "port": str(PORT)}
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    access = f"local {NAME} {NAME} scram-sha-256\n"
    for file, text in (("postgresql.conf", lines), ("pg_hba.conf", access)):
        text = f"# Written by Roundhouse at each start.\n{text}"
        if not (where / file).is_file() or (where / file).read_text(encoding="utf-8") != text:  # a disk may be full
            service.write_private(where / file, text, _owner())


def _password_file() -> Path:
    return place() / "password"


def _version(bin_: Path) -> str | None:
    """The server's major version, or None where its account cannot run it."""
    try:
        text = run([bin_ / "postgres", "--version"]).stdout
    except (ClusterError, OSError):
        return None
    match = re.search(r"(\d+)(?:\.\d+)?", text)
    return match[1] if match else None


def _folder(path: Path, mode: int, owner: Account | None) -> Path:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
        if owner and path.stat().st_uid != owner.uid:
            os.chown(path, owner.uid, owner.gid)
    except OSError as error:
        raise ClusterError(f"cannot make the folder {path}: {error.strerror}") from error
    return path


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _has_server(where: Path) -> bool:
    """Whether a server runs on this data: its first line is the server's pid."""
    first = (_read(where / "postmaster.pid") or "").partition("\n")[0]
    return first.isdigit() and Path("/proc", first).exists()


def _owner() -> tuple[int, int] | None:
    who = account()
    return who.ids if who else None


def _let_run(programs: Path) -> None:
    """Whatever the umask was under which they were fetched and copied, everybody may run the programs."""
    for path in (programs, *programs.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
