"""``roundhouse plan``: what fits on a device, before anything starts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from roundhouse.cli.errors import REFUSED, USAGE, CliError
from roundhouse.config import paths
from roundhouse.config.load import ConfigError, load_settings
from roundhouse.config.schema import ResidencySettings, Settings
from roundhouse.footprint.card import CardError
from roundhouse.footprint.estimate import FilesError, FlagsError
from roundhouse.footprint.files import cached, is_folder
from roundhouse.footprint.need import MIB
from roundhouse.footprint.ram import machine_ram
from roundhouse.launchers.vllm.download import hub_reachable
from roundhouse.plan import report, subjects, table
from roundhouse.plan.devices import devices, memlock_note

SMALLEST = 64 * MIB
"""A size below this is a number without its unit."""


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """``16GiB``, ``24576MiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes; a size that is negative or has no unit is refused."""
        try:
            size = int(TypeAdapter(ByteSize).validate_python(value))
        except ValidationError:
            self.fail(f"{value!r} is no size: write it like 16GiB", param, ctx)
        if size < SMALLEST:
            self.fail(f"{value!r} is {size} bytes: write it like 16GiB", param, ctx)
        return size


@dataclass(frozen=True, slots=True)
class Asked:
    """The options."""

    device: int | None
    ram: int | None
    profile: paths.Profile | None
    models: tuple[str, ...]


@click.command(
    help="Show what fits on the device, before anything starts: which models, how long their contexts may be, where "
    "they sleep, and the smallest change that makes the others fit. It reads configurations and headers, no weights."
)
@click.option(
    "--device",
    type=Size(),
    help="Plan for a card that is not here. A whole number of GiB is the size on the box: of 16GiB CUDA shows 15.48; "
    "15.48GiB is taken as it is.",
)
@click.option("--ram", type=Size(), help="Plan for a machine with that much RAM.  [default: this machine's]")
@click.option(
    "--profile",
    type=click.Choice(list(paths.PROFILES)),
    help="The set-up to plan for.  [default: ROUNDHOUSE_CONFIG, else the one for a card]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="DIR",
    help="Plan for this folder, or name on the model hub, instead of the YAML's models. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="The plan as JSON.")
def command(
    device: int | None, ram: int | None, profile: paths.Profile | None, models: tuple[str, ...], as_json: bool
) -> None:
    """Print the plan; exit code 4 if something does not fit."""
    paths.load_env_file()
    try:
        plan = _plan(Asked(device, ram, profile, models))
    except (ConfigError, FilesError, FlagsError) as error:
        raise CliError(str(error), USAGE) from error
    except CardError as error:
        raise CliError(f"{error}; --device plans for a card without asking it") from error
    if as_json:
        click.echo(json.dumps(report.as_json(plan), indent=2))
    else:
        click.echo(table.text(plan))
    if plan.fits is False:
        misfits = [name for name, it in plan.models.items() if it.fits is False]
        raise CliError(f"does not fit: {', '.join(misfits)}", REFUSED)


def _plan(asked: Asked) -> report.Plan:
    """Raises CardError, ConfigError, FilesError or FlagsError."""
    ram = asked.ram or machine_ram()
    settings = None if asked.models else load_settings(_config_file(asked.profile), elsewhere=asked.ram is not None)
    residency = ResidencySettings() if settings is None else settings.residency
    places = devices(residency, asked.device, ram, assume=True)
    capacities = {it.id: it.room.capacity for it in places}
    network = _ask_hub(asked.models or _names(settings))
    if settings is None:
        found = subjects.of_folders(asked.models, places[0].id, capacities[places[0].id], network)
    else:
        found = [it for it in subjects.of_settings(settings, capacities, network) if it.device in capacities]
    budget = residency.ram_budget
    notes = (memlock_note(None if budget is None or asked.ram else int(budget)), _elsewhere(asked, residency, ram))
    return report.make(found, places, ram, tuple(it for it in notes if it), on_cpu=asked.profile == "cpu")


def _elsewhere(asked: Asked, residency: ResidencySettings, ram: int) -> str | None:
    """A line where the default set-up is planned for, and it is not the one that this machine would have."""
    if asked.models or asked.profile or os.environ.get("ROUNDHOUSE_CONFIG") or devices(residency, asked.device, ram):
        return None
    return (
        "this machine has no NVIDIA card, so 'up' takes config/presets/cpu.yaml here; this is the plan of "
        "litellm_config.yaml for the card that it is made for, an RTX 5080. --profile plans for another set-up"
    )


def _config_file(profile: paths.Profile | None) -> Path:
    if profile is None and os.environ.get("ROUNDHOUSE_CONFIG"):
        return paths.config_file()
    return paths.default_config_file(profile or "rtx5080")


def _names(settings: Settings | None) -> tuple[str, ...]:
    models = settings.models.values() if settings is not None else ()
    return tuple(it.launcher.model for it in models if it.launcher.kind == "vllm")


def _ask_hub(models: tuple[str, ...]) -> bool:
    """Whether the hub has to be asked for any of ``models``, and answers."""
    return any(not is_folder(it) and cached(it) is None for it in models) and hub_reachable()
