"""Residency's control socket, for commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import httpx

from roundhouse.cli import drain
from roundhouse.cli.errors import REFUSED, USAGE, CliError, NotRunning
from roundhouse.config import paths

if TYPE_CHECKING:
    from roundhouse.cli.started import Started

LOOK_S = 5.0
"""Residency answers from memory."""


def client(timeout: float | None = LOOK_S) -> httpx.Client:
    """An HTTP client on the control socket."""
    transport = httpx.HTTPTransport(uds=str(paths.control_socket()))
    return httpx.Client(transport=transport, base_url="http://residency", timeout=timeout)


def status() -> dict[str, Any]:
    """Residency's status. Raises NotRunning."""
    try:
        with client() as api:
            document: dict[str, Any] = api.get("/status").json()
            return document
    except httpx.HTTPError as error:
        raise NotRunning from error


def model_name(name: str) -> str:
    """The model that is served by that ``name``, or by an alias of it.

    Raises:
        NotRunning: there is no residency.
        CliError: there is none; with the nearest name.
    """
    served, known = status()["models"], names()
    name = known.get(name, name)
    if name not in served:
        raise unknown_model(name, [*served, *known])
    return name


def unknown_model(name: str, known: Sequence[str]) -> CliError:
    """The error of a name that is none of ``known``, with the nearest that is, and what the YAML has gained since."""
    from roundhouse.cli import started

    known = list(dict.fromkeys(known))
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    record = started.running()
    changes = record.changes() if record is not None else None
    return CliError(f"no model {name!r}; {hint}" + (f"; {changes}" if changes else ""), USAGE)


def aliases() -> dict[str, str]:
    """Alias -> model: of the stack as it was started, whatever its YAML says now; else of the YAML.

    Raises:
        CliError: there is no such stack, and the YAML has faults.
    """
    return _known().aliases


def names() -> dict[str, str]:
    """Any other name -> model: aliases, and entries that another's engine answers. Raises as ``aliases`` does."""
    return _known().names


def _known() -> Started:
    from roundhouse.cli import started
    from roundhouse.config.load import ConfigError, load_settings

    if (record := started.running()) is not None:
        return record
    try:
        return started.Started.of(load_settings(paths.config_file()))
    except ConfigError as error:
        raise CliError(str(error), USAGE) from error


def command(path: str, body: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> None:
    """Run a command to its end, each of its events to ``show``. Running answers that it waits for are said.

    Raises:
        NotRunning: there is no residency.
        CliError: residency refused.
    """
    try:
        with drain.told(status), client(timeout=None) as api, api.stream("POST", path, json=body) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["event"] == "refused":
                    raise CliError(event["message"], REFUSED)
                show(event)
    except httpx.ConnectError as error:
        raise NotRunning from error
    except httpx.HTTPError as error:
        raise CliError(f"residency went away meanwhile ({error})") from error


def words(event: dict[str, Any]) -> str:
    """An event as a line for a person."""
    model = event.get("model", "")
    match event["event"]:
        case "queued":
            estimate, low, high = (event.get(key) for key in ("estimate_s", "low_s", "high_s"))
            text = f", about {estimate:.0f} s" if estimate else ""
            return f"waiting for {model}{text}" + (f" ({low:.0f} to {high:.0f})" if text and high else "")
        case "starting":
            percent = f" {event['percent']:.0f} %" if event.get("percent") is not None else ""
            return f"{model}: {event['phase']}{percent}"
        case "stopping":
            return f"{model}: stopping"
        case "stopped" | "ready":
            return f"{model}: {event['event']}"
        case "alarm":
            return str(event["text"])
    return ""
