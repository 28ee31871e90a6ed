"""``roundhouse db ...``: where the database of keys, teams and spend is; back up and restore the local one."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from roundhouse.cli.errors import REFUSED, USAGE, CliError, NotRunning
from roundhouse.config import paths
from roundhouse.config import virtual_keys as keys
from roundhouse.deploy.services import cluster, pids

MAGIC = b"PGDMP"
"""How a dump in PostgreSQL's own format begins."""

EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


@click.group(help="The database of keys, teams and spend: where it is, back it up, restore it.")
def command() -> None:
    """The group."""


@command.command(help="Say where the database is, how big it is, and what homes that are gone have left behind.")
def where() -> None:
    """Look."""
    from roundhouse.proxy.database import address

    try:
        local = _is_local()
        if local:
            click.echo(f"{cluster.data()}: {_size(cluster.place())}")
        elif keys.enabled():
            click.echo(f"{address.where(os.environ['DATABASE_URL'])} (DATABASE_URL)")
        else:
            click.echo("virtual keys are off (ROUNDHOUSE_KEYS): there is none")
        left = cluster.left_behind()
    except cluster.ClusterError as error:
        raise CliError(str(error)) from error
    if left:
        click.echo("Left behind by homes that are gone; what is not wanted any more can be removed:")
    for folder, home in left:
        whose = f"of {home}" if home else "of a home that an earlier release did not note; see that it is gone"
        click.echo(f"  rm -r {folder}  # {_size(folder)}, {whose}")


def _size(folder: Path) -> str:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # a server is at work in it
            size += path.lstat().st_blocks * 512
    return f"{size / 2**20:.0f} MB"


@command.command(help="Write the database to FILE, while it is in use. The file is for your eyes only (0600).")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def backup(file: Path, force: bool) -> None:
    """Dump."""
    _require_local()
    if file.exists() and not force:
        raise CliError(f"{file} is there already; --force replaces it", USAGE)
    fresh = file.with_name(f"{file.name}.new")
    try:
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        _run("pg_dump", f"--file={fresh}", "--format=custom", "--schema=public", "--no-owner", "--no-privileges")
        os.replace(fresh, file)
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)
    click.echo(f"{file}: {file.stat().st_size / 2**20:.1f} MB; keep .env with it, its LITELLM_SALT_KEY decrypts it")


@command.command(help="Put the database back as it was when FILE was written; what came after is lost.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(file: Path, yes: bool) -> None:
    """Load a dump, whole or not at all."""
    _require_local()
    try:
        with file.open("rb") as begun:
            if begun.read(len(MAGIC)) != MAGIC:
                raise CliError(f"{file} is no backup made by 'roundhouse db backup'", USAGE)
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}", USAGE) from error
    if not yes and not click.confirm(f"Replace all keys, teams and spend by those of {file}?"):
        raise CliError("nothing was changed", REFUSED)
    script = paths.run_dir() / "restore.sql"
    try:
        os.close(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        options = ("--schema=public", "--no-owner", "--no-privileges")
        _run("pg_restore", f"--file={script}", *options, str(file), connect=False)
        at_once = ("--single-transaction", "--set=ON_ERROR_STOP=1", "--quiet", "--no-psqlrc", "--output=/dev/null")
        _run("psql", *at_once, f"--command={EMPTY}", f"--file={script}")
    finally:
        script.unlink(missing_ok=True)
    _bring_up_to_date()
    click.echo("restored; the gateway drops its cached keys within a minute")


def _is_local() -> bool:
    """Whether there are keys and their database is ours. Raises CliError."""
    paths.load_env_file()
    try:
        return keys.own_database()
    except ValueError as error:
        raise CliError(str(error), USAGE) from error


def _require_local() -> None:
    """That the database is ours, and runs. Raises CliError, or NotRunning."""
    if not _is_local():
        raise CliError("there is no local database: it is DATABASE_URL's; use its own tools", REFUSED)
    if pids.recorded("postgres") is None:
        raise NotRunning


def _bring_up_to_date() -> None:
    """Bring the tables up to this LiteLLM: the backup may come from an older one."""
    import psycopg

    from roundhouse.proxy.database import migrations

    try:
        migrations.deploy(cluster.url())
    except (migrations.MigrationError, psycopg.Error) as error:
        raise CliError(f"restored, but the tables cannot be brought up to date: {str(error).strip()}") from error


def _run(program: str, *arguments: str, connect: bool = True) -> None:
    """Run one of PostgreSQL's programs on the local database. Raises CliError with its first words."""
    try:
        address, bin_ = urlsplit(cluster.url()), cluster.parts().postgres
    except cluster.ClusterError as error:
        raise CliError(str(error)) from error
    where = {
        "PGHOST": str(cluster.socket_folder()),
        "PGPORT": str(cluster.PORT),
        "PGUSER": cluster.NAME,
        "PGDATABASE": cluster.NAME,
        "PGPASSWORD": unquote(address.password or ""),  # never in a command line
    }
    env = {"PATH": os.defpath, "LC_ALL": "C", **(where if connect else {})}
    done = subprocess.run([bin_ / program, *arguments], env=env, capture_output=True, check=False)
    if done.returncode != 0:
        words = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise CliError(f"{program} failed, nothing was changed: {words[0] if words else 'no reason given'}")
