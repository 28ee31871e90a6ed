"""``roundhouse down``: drain, stop everything, leave nothing behind."""

from __future__ import annotations

import shutil

import click

from roundhouse.cli import control, started, told
from roundhouse.cli.errors import CliError, NotRunning
from roundhouse.cli.told import say
from roundhouse.config import paths
from roundhouse.deploy.services import cluster, pids
from roundhouse.launchers.process.records import Record, read_records, sweep


def bring_down(force: bool, wanted: bool = True) -> None:
    """Stop residency in order, then every process of this home, whatever state it is in.

    ``wanted``: somebody asked for it, so that nobody is told later that the stack died.

    Raises:
        NotRunning: there was nothing to stop.
        CliError: something could not be ended.
    """
    with told.deaf():
        running = pids.ours()
        engines = [record for record in _engines() if record.members()]
        if not running and not engines:
            _tidy()
            raise NotRunning
        if wanted:
            started.mark_stopped()  # before anything ends: an 'up' that attends to it sees why
    try:
        control.command("/shutdown", {"force": force}, _show)
    except (NotRunning, CliError):
        if pids.recorded("residency") is not None:
            say("residency does not answer; ending its processes", err=True)
    except KeyboardInterrupt:
        say("stopping now; running answers are cut off", err=True)
    with told.deaf():
        pids.end_all()
        sweep(paths.engine_records())
        sweep(paths.host_records())
    left = [f"{p.pid} {p.name()}" for p in pids.ours()]
    left += [str(record.pid) for record in _engines() if record.members()]
    _tidy()
    if left:
        raise CliError(f"still there after SIGKILL: {', '.join(left)}")


def _engines() -> list[Record]:
    """The records of all engines, and of the engine host."""
    return [*read_records(paths.engine_records()), *read_records(paths.host_records())]


def _show(event: dict[str, object]) -> None:
    text = control.words(event)
    if text:
        say(text, err=True)


def _tidy() -> None:
    """Remove sockets and records of what does not run any more."""
    for path in (paths.control_socket(), paths.host_socket()):
        path.unlink(missing_ok=True)
    for folder in paths.engine_scratch(0).parent.glob("engine-*"):
        shutil.rmtree(folder, ignore_errors=True)


@click.command(help="Stop everything; running answers end first. Ctrl-C, or --force, cuts them.")
@click.option("--force", is_flag=True, help="At once: running answers are cut.")
def command(force: bool) -> None:
    """Bring the stack down."""
    told.listen()
    pid = started.starter()
    if pid is not None and not pids.ours():
        raise CliError(f"process {pid} is preparing a start, and nothing runs yet; Ctrl-C there, or 'kill {pid}'")
    bring_down(force)
    say("down")
    if (place := cluster.elsewhere()) is not None:
        say(f"keys and usage stay in {place}")
