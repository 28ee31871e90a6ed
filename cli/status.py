"""``roundhouse status``: what is on the device, and who waits."""

from __future__ import annotations

import json
from typing import Any

import click

from roundhouse.cli import control, started


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _memory(model: dict[str, Any]) -> str:
    it = model["memory"]
    if it is None:
        return ""
    return f"{'about ' if it['estimated'] else ''}{_gib(it['awake'])} awake, {_gib(it['residual'])} asleep"


def lines(status: dict[str, Any]) -> list[str]:
    """The status for a person."""
    result = []
    for device in status["devices"]:
        switching = device["switching"]
        text = f"{device['id']}: {', '.join(device['residents']) or 'empty'}"
        if switching:
            text = (
                f"{device['id']}: {switching['from'] or 'empty'} -> {switching['to'] or 'empty'}, {switching['phase']}"
            )
            text += f" for {_seconds(switching['elapsed_s'])}"
            if switching["estimate_s"]:
                text += f" of about {_seconds(switching['estimate_s'])}"
        result.append(text)
        memory = device["memory"]
        if memory["capacity"]:
            text = f"  {_gib(memory['capacity'])}, {_gib(memory['for_models'])} for models, others use"
            text += f" {_gib(memory['others'])}"
            result.append(text + (f": {', '.join(memory['programs'])}" if memory["programs"] else ""))
    rows = [("MODEL", "STATE", "ANSWERING", "WAITING", "LONGEST WAIT", "STARTS IN", "WAKES IN", "MEMORY")]
    for name, model in status["models"].items():
        progress = model.get("progress")
        state = model["state"]
        if progress:
            percent = f" {progress['percent']:.0f} %" if progress["percent"] is not None else ""
            state += f" ({progress['phase']}{percent})"
        if model["sleep_level"]:
            state += f" (level {model['sleep_level']})"
        waits, measured = _seconds(model["oldest_wait_s"]), model["measured"]
        start, wake = _seconds(measured["start_s"]), _seconds(measured["wake_s"])
        rows.append((name, state, str(model["leases"]), str(model["waiting"]), waits, start, wake, _memory(model)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    result += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    result += [f"  {name}: {m['failure']}" for name, m in status["models"].items() if m["failure"]]
    if host := status.get("engine_host"):
        memory = f", {host['unique_bytes'] / 2**20:.0f} MiB of its own" if host["unique_bytes"] else ""
        result.append(f"vLLM, imported ahead for quick starts (engine host): {host['state']}{memory}")
    return result


@click.command(help="Show what is on the device and who waits.")
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
def command(as_json: bool) -> None:
    """Print the status; exit code 3 if nothing runs."""
    status = control.status()
    if as_json:
        click.echo(json.dumps(status, indent=2))
        return
    record = started.running()
    changes = record.changes() if record is not None else None
    click.echo("\n".join([*lines(status), *([f"note: {changes}"] if changes else [])]))
