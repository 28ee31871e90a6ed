"""``roundhouse env``: the lines that point an OpenAI client here."""

from __future__ import annotations

import os
import shlex

import click

from roundhouse.cli import whereabouts
from roundhouse.cli.errors import USAGE, CliError
from roundhouse.config import address, paths, proxies


def base_url() -> str:
    """The address that OpenAI clients are given. Raises CliError where a setting of it is wrong."""
    try:
        return address.base_url()
    except ValueError as error:
        raise CliError(str(error), USAGE) from error


@click.command(help='Print what to export, for: eval "$(./roundhouse env)"')
def command() -> None:
    """Print two export lines, and two more where a client would else ask a proxy for us."""
    paths.load_env_file()
    whereabouts.follow()
    key = os.environ.get("LITELLM_MASTER_KEY")
    if not key:
        raise CliError(f"no key yet: {paths.env_file()} has no LITELLM_MASTER_KEY; 'roundhouse up' makes one")
    click.echo(f"export OPENAI_BASE_URL={shlex.quote(base_url())}")
    click.echo(f"export OPENAI_API_KEY={shlex.quote(key)}")
    if proxies.named(os.environ):
        for name, value in proxies.bypassing(os.environ, [address.reached_at(address.host())]).items():
            click.echo(f"export {name}={shlex.quote(value)}")
