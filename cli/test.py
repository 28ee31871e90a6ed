"""``roundhouse test``: every check of the project, as CI runs it."""

from __future__ import annotations

import subprocess
import sys

import click

from roundhouse.cli.errors import CliError
from roundhouse.config import paths


@click.command(
    help="Run every check that CI runs; arguments go to pytest.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run pytest in the checkout."""
    if not paths.in_checkout():
        raise CliError("the tests are in the checkout; clone the repository and run './roundhouse test' there")
    code = subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=paths.project_root())
    sys.exit(0 if code == 0 else 1)
