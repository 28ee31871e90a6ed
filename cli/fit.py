"""``up`` asks the plan before it downloads or starts anything: a set-up that cannot work is refused at once."""

from __future__ import annotations

from typing import Literal

import click

from roundhouse.cli.errors import USAGE, CliError
from roundhouse.config import paths
from roundhouse.config.schema import Settings
from roundhouse.deploy.setup import card, choice
from roundhouse.launchers.vllm.launcher import is_cpu
from roundhouse.launchers.vllm.weights import Source, recorded


def require_card() -> None:
    """Raise CliError, with the remedy, if the engines are to run on a card and its driver does not answer."""
    if is_cpu(paths.engine_python()):
        return
    try:
        choice.require_card(paths.environments())
    except card.CardError as error:
        raise CliError(str(error)) from error


def require_fit(settings: Settings, choice: Literal["auto", "hub", "tiny"]) -> None:
    """Raise CliError if a model of ``settings`` cannot be served by its device; say what cannot be told, and go on.

    Only this machine is asked, no network. Nothing is checked for engines on the CPU, for tiny stand-ins, and where
    nobody knows how much memory the device has.
    """
    tiny = choice == "tiny" or (choice == "auto" and recorded() is Source.TINY)
    if tiny or is_cpu(paths.engine_python()):
        return
    from roundhouse.footprint.card import CardError
    from roundhouse.footprint.ram import machine_ram
    from roundhouse.plan import devices, report, subjects

    ram = machine_ram()
    try:
        places = devices.devices(settings.residency, None, ram)
    except CardError as error:
        raise CliError(str(error)) from error
    if not places:
        return
    capacities = {it.id: it.room.capacity for it in places}
    found = [it for it in subjects.of_settings(settings, capacities, network=False) if it.device in capacities]
    plan = report.make(found, places, ram)
    if misfits := plan.misfits():
        text = "\n".join(["this set-up cannot work; 'roundhouse plan' shows the sums:", *(f"  {it}" for it in misfits)])
        raise CliError(text, USAGE)
    budget = settings.residency.ram_budget
    note = devices.memlock_note(None if budget is None else int(budget))
    for line in [*plan.unclear(), *([note] if note else [])]:
        click.echo(f"  plan: {line}", err=True)
