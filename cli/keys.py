"""``roundhouse keys ...``: a key for each project, script and editor, through LiteLLM's management API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import click

from roundhouse.cli import control
from roundhouse.cli.errors import USAGE, CliError
from roundhouse.cli.gateway import ManagementApi
from roundhouse.config import key_metadata

PAGE = 100
"""The most keys that LiteLLM lists at once."""

Document = dict[str, Any]


class Budget(click.ParamType[Any]):
    """An amount in USD, or none."""

    name = "usd|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """From text to a number; ``none`` is None."""
        if value == "none" or value is None:
            return None
        try:
            amount = float(value)
        except ValueError:
            amount = -1.0
        if not 0 <= amount < float("inf"):
            self.fail(f"{value!r} is not an amount in USD; write a number, or none", param, ctx)
        return amount


class Duration(click.ParamType[str]):
    """A time from now, as LiteLLM writes it."""

    name = "30d"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form; LiteLLM reads the text itself."""
        text = str(value)
        if not (text[:-1].isdigit() and int(text[:-1]) > 0 and text[-1] in "smhdw"):
            self.fail(f"{text!r} is no time; write a number and s, m, h, d or w, such as 30d", param, ctx)
        return text


as_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group(help="Make, look at, block and delete virtual keys: one for each project, script and editor.")
def command() -> None:
    """The group."""


@command.command(help="Make a key called NAME and print it, once: it cannot be seen again.")
@click.argument("name")
@click.option("--models", help="Names or aliases, with commas; without it the key may use every model.")
@click.option("--budget", type=Budget(), default=None, help="What it may spend in all; local models cost nothing.")
@click.option("--rpm", type=click.IntRange(min=1), help="Requests a minute.")
@click.option("--priority", type=click.Choice(["interactive", "normal", "batch"]), help="Who goes first in a queue.")
@click.option(
    "--may-switch",
    type=click.Choice(["always", "never", "off-hours"]),
    help="Whether its requests may have another model brought onto the device.",
)
@click.option("--max-wait", type=float, help="Seconds that its requests may wait for their model.")
@click.option("--expires", type=Duration(), help="When it ends, from now: 30d, 12h.")
@as_json_option
def create(
    name: str,
    models: str | None,
    budget: float | None,
    rpm: int | None,
    priority: str | None,
    may_switch: str | None,
    max_wait: float | None,
    expires: str | None,
    as_json: bool,
) -> None:
    """Make a key."""
    asked = {"priority": priority, "may_switch": may_switch, "max_wait": max_wait}
    try:
        metadata = key_metadata.parse({k: v for k, v in asked.items() if v is not None}).as_metadata()
    except ValueError as error:
        raise CliError(str(error), USAGE) from error
    body: Document = {"key_alias": name, "metadata": metadata}
    body |= {"max_budget": budget, "rpm_limit": rpm, "duration": expires}
    body["allowed_routes"] = ["llm_api_routes", "info_routes"]
    with ManagementApi() as api:
        if _find(api, name, missing_ok=True):
            raise CliError(f"there is a key {name!r} already; delete it first, or choose another name", USAGE)
        body["models"] = _models(api, models)
        made = api.post("/key/generate", {k: v for k, v in body.items() if v is not None})
    if as_json:
        shown = ("key_alias", "key", "models", "max_budget", "rpm_limit", "expires", "metadata")
        click.echo(json.dumps({name: made.get(name) for name in shown}, indent=2))
        return
    click.echo(f"{name}: keep it, it cannot be shown again", err=True)
    click.echo(made["key"])


@command.command("list", help="List the keys.")
@as_json_option
def list_(as_json: bool) -> None:
    """One line a key."""
    with ManagementApi() as api:
        found = _all(api)
    if as_json:
        click.echo(json.dumps([_public(key) for key in found], indent=2))
        return
    rows = [("NAME", "MODELS", "SPENT", "RPM", "EXPIRES", "STATE"), *(_row(key) for key in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@command.command(help="Show the key NAME: its limits, what it has spent, its metadata.")
@click.argument("name")
@as_json_option
def show(name: str, as_json: bool) -> None:
    """All that is known of one key, except the key."""
    with ManagementApi() as api:
        key = _public(_one(api, name))
    if as_json:
        click.echo(json.dumps(key, indent=2))
        return
    for field, value in key.items():
        click.echo(f"{field:<12} {json.dumps(value) if isinstance(value, dict | list) else value}")


@command.command(help="Block the key NAME: its requests get status 401 until it is unblocked.")
@click.argument("name")
def block(name: str) -> None:
    """Block."""
    _act("/key/block", name, lambda key: {"key": key["token"]})
    click.echo(f"{name} is blocked")


@command.command(help="Let the key NAME in again.")
@click.argument("name")
def unblock(name: str) -> None:
    """Unblock."""
    _act("/key/unblock", name, lambda key: {"key": key["token"]})
    click.echo(f"{name} is let in again")


@command.command(help="Delete the key NAME for good; what it has spent stays in the logs.")
@click.argument("name")
def delete(name: str) -> None:
    """Delete."""
    _act("/key/delete", name, lambda key: {"keys": [key["token"]]})
    click.echo(f"{name} is deleted")


def _act(path: str, name: str, body: Callable[[Document], Document]) -> None:
    with ManagementApi() as api:
        api.post(path, body(_one(api, name)))


def _models(api: ManagementApi, text: str | None) -> list[str]:
    """The models' names; an alias is what LiteLLM checks when it is asked for, so it stays beside its model."""
    if text is None:
        return []
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise CliError("--models names no model", USAGE)
    aliases = control.aliases()
    known = [*(model["id"] for model in api.get("/v1/models")["data"]), *aliases]
    chosen: list[str] = []
    for name in names:
        if name not in known and "*" not in name:  # LiteLLM's wildcards stand for names that it does not list
            raise control.unknown_model(name, known)
        model = aliases.get(name, name)
        chosen += [model, *(alias for alias, target in aliases.items() if target == model)]
    return list(dict.fromkeys(chosen))


def _all(api: ManagementApi) -> list[Document]:
    """Every key but those of the UI's sessions, oldest first."""
    found: list[Document] = []
    page, pages = 1, 1
    while page <= pages:
        options = {"page": page, "size": PAGE, "return_full_object": "true", "sort_by": "created_at"}
        document = api.get("/key/list", **options, sort_order="asc")
        found += [key for key in document["keys"] if key.get("team_id") != "litellm-dashboard"]
        page, pages = page + 1, int(document.get("total_pages") or 1)
    return found


def _find(api: ManagementApi, name: str, missing_ok: bool = False) -> Document | None:
    """The key of that name; or, given a key itself, that key."""
    token = hashlib.sha256(name.encode()).hexdigest() if name.startswith("sk-") else name
    known = _all(api)
    for key in known:
        if name == key.get("key_alias") or token == key.get("token"):
            return key
    if missing_ok:
        return None
    names = ", ".join(str(key.get("key_alias") or key["key_name"]) for key in known) or "none yet"
    raise CliError(f"no key {name if not name.startswith('sk-') else 'like that'}; there are: {names}", USAGE)


def _one(api: ManagementApi, name: str) -> Document:
    key = _find(api, name)
    assert key is not None
    return key


def _public(key: Document) -> Document:
    """A key for a person: LiteLLM's names, without what is empty for everybody."""
    return {
        "name": key.get("key_alias"),
        "key": key.get("key_name"),
        "models": key.get("models") or [],
        "budget": key.get("max_budget"),
        "spent": key.get("spend") or 0.0,
        "rpm": key.get("rpm_limit"),
        "expires": key.get("expires"),
        "blocked": bool(key.get("blocked")),
        "team": key.get("team_id"),
        "user": key.get("user_id"),
        "metadata": key.get("metadata") or {},
        "created": key.get("created_at"),
    }


def _row(key: Document) -> tuple[str, ...]:
    it = _public(key)
    budget = f" of {it['budget']:g}" if it["budget"] is not None else ""
    return (
        str(it["name"] or it["key"]),
        ", ".join(it["models"]) or "all",
        f"{it['spent']:.2f}{budget} USD",
        str(it["rpm"] or "any"),
        str(it["expires"] or "never")[:16],
        "blocked" if it["blocked"] else "ok",
    )
