"""``roundhouse test``: every check of the project, as CI runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from roundhouse.cli.errors import CliError
from roundhouse.config import paths
from roundhouse.deploy.setup import choice


@click.command(
    help="Run every check that CI runs; arguments go to pytest.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run pytest in the checkout."""
    if not paths.in_checkout():
        raise CliError("the tests are in the checkout; clone the repository and run './roundhouse test' there")
    root = paths.project_root()
    env, kind = dict(os.environ), choice.of_tests(root, arguments)
    if kind is not paths.engine_kind():  # the CPU's on a machine with a card, or the card's on one without
        env.setdefault("ROUNDHOUSE_ENGINE_PYTHON", str(kind.python(root)))
    code = subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=root, env=env)
    sys.exit(0 if code == 0 else 1)
