"""``roundhouse switch MODEL``: bring a model onto its device."""

from __future__ import annotations

import click

from roundhouse.cli import control


@click.command(help="Bring MODEL (a name or an alias) onto its device; running answers end first.")
@click.argument("model")
def command(model: str) -> None:
    """Switch, with progress."""
    name = control.model_name(model)
    last = ""

    def show(event: dict[str, object]) -> None:
        nonlocal last
        text = control.words(event)
        if text and text != last:
            click.echo(text, err=True)
        last = text or last

    control.command("/switch", {"model": name}, show)
    click.echo(f"{name} is ready")
