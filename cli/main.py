"""``roundhouse COMMAND``: the group of commands, each in a module of its own, imported when used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from roundhouse import __version__
from roundhouse.cli.errors import FAILED, CliError, NotRunning
from roundhouse.deploy.setup.errors import foreign

COMMANDS = {
    "up": "Start everything and say where it is.",
    "down": "Drain, stop everything, leave nothing behind.",
    "env": "Print the lines that point an OpenAI client here.",
    "status": "Show what is on the device and who waits.",
    "switch": "Bring a model onto its device.",
    "unload": "Take a model, or all, off its device.",
    "logs": "Show the log of a service or an engine.",
    "plan": "Show what fits on the device, before anything starts.",
    "keys": "Make, look at, block and delete virtual keys.",
    "ui": "Open the admin UI.",
    "db": "Back up and restore the database of keys and spend.",
    "bench": "Measure Roundhouse against its baselines.",
    "test": "Run every check of the project.",
}


class Lazy(click.Group):
    """Finds commands by name; help is shown without importing any of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import ``cli/NAME.py`` and return its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"roundhouse.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="roundhouse")
def group() -> None:
    """One GPU, many models, every OpenAI client.

    Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 not running; 4 refused.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; mistakes of the user end with one line and an exit code, not with a traceback."""
    try:
        group.main(args=argv, prog_name="roundhouse", standalone_mode=False)
    except CliError as error:
        text = _why_not() if isinstance(error, NotRunning) else error
        click.echo(f"roundhouse: {text}", err=True)
        sys.exit(error.code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt) as error:
        told = error.__cause__ or error  # click makes an Abort of a KeyboardInterrupt
        sys.exit(getattr(told, "code", 130))
    except PermissionError as error:
        click.echo(f"roundhouse: {foreign(error)}", err=True)
        sys.exit(FAILED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _why_not() -> str:
    """Why nothing runs in this home."""
    from roundhouse.cli import absence

    return absence.why()


if __name__ == "__main__":
    main()
