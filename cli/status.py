"""``roundhouse status``: what is on the device, and who waits."""

from __future__ import annotations

import json
from typing import Any

import click

from roundhouse.cli import control


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def lines(status: dict[str, Any]) -> list[str]:
    """The status for a person."""
    result = []
    for device in status["devices"]:
        switching = device["switching"]
        text = f"{device['id']}: {device['resident'] or 'empty'}"
        if switching:
            text = (
                f"{device['id']}: {switching['from'] or 'empty'} -> {switching['to'] or 'empty'}, {switching['phase']}"
            )
            text += f" for {_seconds(switching['elapsed_s'])}"
            if switching["estimate_s"]:
                text += f" of about {_seconds(switching['estimate_s'])}"
        result.append(text)
    rows = [("MODEL", "STATE", "ANSWERING", "WAITING", "LONGEST WAIT", "START TAKES")]
    for name, model in status["models"].items():
        progress = model.get("progress")
        state = model["state"]
        if progress:
            percent = f" {progress['percent']:.0f} %" if progress["percent"] is not None else ""
            state += f" ({progress['phase']}{percent})"
        waits = _seconds(model["oldest_wait_s"])
        start = _seconds(model["measured"]["start_s"])
        rows.append((name, state, str(model["leases"]), str(model["waiting"]), waits, start))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    result += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    result += [f"  {name}: {m['failure']}" for name, m in status["models"].items() if m["failure"]]
    if host := status.get("engine_host"):
        memory = f", {host['unique_bytes'] / 2**20:.0f} MiB of its own" if host["unique_bytes"] else ""
        result.append(f"engine host: {host['state']}{memory}")
    return result


@click.command(help="Show what is on the device and who waits.")
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
def command(as_json: bool) -> None:
    """Print the status; exit code 3 if nothing runs."""
    status = control.status()
    click.echo(json.dumps(status, indent=2) if as_json else "\n".join(lines(status)))
