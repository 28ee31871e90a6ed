"""Residency's control socket, for commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import httpx

from roundhouse.cli.errors import REFUSED, USAGE, CliError, NotRunning
from roundhouse.config import paths

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
    """The model that ``name`` or an alias of it means.

    Raises:
        CliError: there is none; with the nearest name.
    """
    from roundhouse.config.load import load_settings

    settings = load_settings(running_config())
    name = settings.aliases.get(name, name)
    if name not in settings.models:
        raise unknown_model(name, [*settings.models, *settings.aliases])
    return name


def unknown_model(name: str, known: Sequence[str]) -> CliError:
    """The error of a name that is none of ``known``, with the nearest that is."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return CliError(f"no model {name!r}; {hint}", USAGE)


def running_config() -> Any:
    """The YAML of the running stack, as ``up`` recorded it, else the one that would be used."""
    from pathlib import Path

    record = paths.run_dir() / "config"
    return Path(record.read_text().strip()) if record.is_file() else paths.config_file()


def command(path: str, body: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> None:
    """Run a command to its end, each of its events to ``show``.

    Raises:
        NotRunning: there is no residency.
        CliError: residency refused.
    """
    try:
        with client(timeout=None) as api, api.stream("POST", path, json=body) as answer:
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
