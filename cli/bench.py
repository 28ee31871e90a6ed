"""``roundhouse bench NAME``: Roundhouse against its baselines, in one run."""

from __future__ import annotations

import json
from typing import Any

import click

from roundhouse.cli.errors import CliError


def _progress(text: str) -> None:
    click.echo(text, err=True)


def _print(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name.replace('_', ' ')}: {text}")


@click.group(help="Measure Roundhouse against its baselines.")
def command() -> None:
    """The benchmarks."""


@command.command(help="What Roundhouse adds to LiteLLM: latency, processor time, streamed tokens.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def overhead(as_json: bool) -> None:
    """Run ``bench overhead``."""
    from roundhouse.bench import overhead as bench

    try:
        _print(bench.run(_progress), as_json)
    except RuntimeError as error:
        raise CliError(str(error)) from error


@command.command(help="Our own share of a switch, with an engine of known start time.")
@click.option("--rounds", default=20, show_default=True, help="How many switches.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def switch(rounds: int, as_json: bool) -> None:
    """Run ``bench switch``."""
    from roundhouse.bench import switch as bench

    try:
        _print(bench.run(max(2, rounds), _progress), as_json)
    except RuntimeError as error:
        raise CliError(str(error)) from error


@command.command(help="A cold engine's way to its first answer: stock, and forked from the engine host.")
@click.option("--pairs", default=5, show_default=True, help="How many starts of each kind, for each model.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def start(pairs: int, as_json: bool) -> None:
    """Run ``bench start``."""
    from roundhouse.bench import start as bench

    try:
        _print(bench.run(max(1, pairs), _progress), as_json)
    except RuntimeError as error:
        raise CliError(str(error)) from error
