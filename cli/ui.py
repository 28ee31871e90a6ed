"""``roundhouse ui``: LiteLLM's admin UI in a browser."""

from __future__ import annotations

import os
import webbrowser

import click

from roundhouse.cli.env import base_url
from roundhouse.cli.gateway import ManagementApi
from roundhouse.config import paths


@click.command(help="Open the admin UI: keys, usage, logs.")
@click.option("--print", "only_print", is_flag=True, help="Print the address and open nothing.")
def command(only_print: bool) -> None:
    """Say where the UI is, and open it if there is a browser."""
    with ManagementApi() as api:
        api.get("/health/liveliness")
    address = f"{base_url().removesuffix('/v1')}/ui/"
    click.echo(address)
    user = os.environ.get("UI_USERNAME") or "admin"
    word = "UI_PASSWORD" if os.environ.get("UI_PASSWORD") else "LITELLM_MASTER_KEY"
    click.echo(f"user {user}, password: {word} in {paths.env_file()}", err=True)
    if not only_print and not webbrowser.open(address):
        click.echo("no browser found; open the address yourself", err=True)
