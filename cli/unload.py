"""``roundhouse unload [MODEL]``: take a model, or all, off its device."""

from __future__ import annotations

import click

from roundhouse.cli import control


@click.command(help="Take MODEL, or everything, off its device; running answers end first.")
@click.argument("model", required=False)
@click.option("--force", is_flag=True, help="At once: running answers are cut.")
def command(model: str | None, force: bool) -> None:
    """Unload, with progress."""
    name = control.model_name(model) if model else None

    def show(event: dict[str, object]) -> None:
        text = control.words(event)
        if text:
            click.echo(text, err=True)

    control.command("/unload", {"model": name, "force": force}, show)
    click.echo(f"{name or 'everything'} is unloaded")
