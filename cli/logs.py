"""``roundhouse logs [NAME]``: the log of a service or an engine."""

from __future__ import annotations

import subprocess
import sys

import click

from roundhouse.cli import control
from roundhouse.cli.errors import USAGE, CliError
from roundhouse.cli.started import Started
from roundhouse.config import paths
from roundhouse.launchers.process.file_names import log_name

LINES = 100


@click.command(
    help="Show the end of a log: 'stack' (all services, the default), or a model's engine (a name or an alias)."
)
@click.argument("name", default="stack")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows.")
@click.option("-p", "--previous", is_flag=True, help="The log before this one: of the last run, after a crash.")
def command(name: str, follow: bool, previous: bool) -> None:
    """Print the last lines of a log."""
    folder = paths.log_dir()
    known = sorted(path.stem for path in folder.glob("*.log"))
    stem = next((s for s in (name, log_name(_model(name)).removesuffix(".log")) if s in known), None)
    if stem is None:
        names = ", ".join(s.removeprefix("engine-") for s in known) or "none yet"
        raise CliError(f"no log {name!r}; there are: {names}", USAGE)
    path = folder / (f"{stem}.log.1" if previous else f"{stem}.log")
    if not path.exists():
        raise CliError(f"there is no log before {stem}.log", USAGE)
    tail = ["tail", "-n", str(LINES), *(["-F"] if follow else []), str(path)]
    sys.exit(subprocess.call(tail))


def _model(name: str) -> str:
    """The model that ``name`` is an alias of, or ``name``. Logs are wanted most when the YAML is wrong."""
    if (last := Started.read()) is not None:
        return last.names.get(name, name)
    try:
        return control.names().get(name, name)
    except CliError:
        return name
