"""``roundhouse up``: check, prepare, start, wait, and say where it is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import click
import httpx

from roundhouse.cli import control
from roundhouse.cli.down import bring_down
from roundhouse.cli.env import base_url
from roundhouse.cli.errors import USAGE, CliError, NotRunning
from roundhouse.cli.fit import require_fit
from roundhouse.config import keys, paths, surroundings
from roundhouse.config.load import ConfigError, load_settings
from roundhouse.config.schema import Settings
from roundhouse.deploy import cluster, pids
from roundhouse.deploy.redis import socket as redis_socket
from roundhouse.launchers.records import read_records

START_S = 180.0
"""How long the services may take: LiteLLM's imports on a slow disk, and then some."""

DATABASE_S = 10
"""How long a database of the user's may take to answer."""

POLL_S = 0.05
LOG_LINES = 15


@click.command(help="Start everything, wait until the gateway answers, and say where it is.")
@click.option(
    "--profile",
    type=click.Choice(list(paths.PROFILES)),
    default=None,
    help="The set-up: by default ROUNDHOUSE_CONFIG, else the RTX 5080's where there is an NVIDIA card, else the CPU's.",
)
@click.option("--detach", is_flag=True, help="Return once it runs; 'roundhouse down' ends it.")
@click.option(
    "--models",
    type=click.Choice(["auto", "hub", "tiny"]),
    default="auto",
    show_default=True,
    help="Weights from the model hub, or tiny random models made on the spot.",
)
def command(profile: paths.Profile | None, detach: bool, models: Literal["auto", "hub", "tiny"]) -> None:
    """Bring the stack up."""
    if not paths.in_checkout():  # in a checkout ./roundhouse has done it
        _set_up()
    paths.load_env_file()
    settings = _settings(profile)
    if _is_up():
        _say_where(settings, None)
        return
    if pids.ours():
        raise CliError("parts of an earlier run are still there; 'roundhouse down' ends them")
    _require_secrets()
    _require_database()
    _require_free_ports(settings)
    require_fit(settings, models)
    notice = _prepare(settings, models)
    stack = _start(settings)
    try:
        _wait(stack)
        _say_where(settings, notice)
        if not detach:
            click.echo("Ctrl-C stops it.")
            code = stack.wait()
            raise CliError(f"a service ended and took the others with it (code {code})\n{_log_end()}")
    except (KeyboardInterrupt, CliError) as error:
        if isinstance(error, KeyboardInterrupt):
            click.echo("\nstopping; Ctrl-C again cuts running answers", err=True)
        with suppress(NotRunning):
            bring_down(force=False)
        if isinstance(error, CliError):
            raise
        click.echo("down")


def _set_up() -> None:
    """Make the engine environment, Redis and the secrets of an installed wheel. Raises CliError."""
    from roundhouse.deploy.setup.errors import SetupError
    from roundhouse.deploy.setup.steps import ensure

    try:
        ensure(engine=True, tools=True, keys=True, secrets=True, project_root=paths.home(), env_path=paths.env_file())
    except SetupError as error:
        raise CliError(str(error)) from error


def _settings(profile: paths.Profile | None) -> Settings:
    """Read the YAML of the profile. Raises CliError with all faults."""
    if profile in paths.FOR_A_CARD and not paths.has_nvidia_card():
        remedy = f"'up --profile cpu' needs none; 'plan --profile {profile} --device 16GiB' plans for a card elsewhere"
        raise CliError(f"the set-up {profile!r} is for an NVIDIA card, and the driver shows none here; {remedy}", USAGE)
    if profile is not None:
        os.environ["ROUNDHOUSE_CONFIG"] = str(paths.default_config_file(profile))
    path = paths.config_file()
    os.environ["ROUNDHOUSE_CONFIG"] = str(path)
    try:
        paths.port()
        paths.workers()
        keys.enabled()
        return load_settings(path)
    except (ConfigError, ValueError) as error:
        raise CliError(str(error), USAGE) from error


def _is_up(patience_s: float = 2.0) -> bool:
    """Whether the gateway answers. Its socket listens long before it does."""
    try:
        control.status()
        return httpx.get(f"{base_url().removesuffix('/v1')}/health/liveliness", timeout=patience_s).status_code == 200
    except (NotRunning, httpx.HTTPError):
        return False


def _require_secrets() -> None:
    for name in ("LITELLM_MASTER_KEY", "ROUNDHOUSE_ENGINE_KEY", "REDIS_PASSWORD"):
        if not os.environ.get(name):
            raise CliError(f"{name} is not set; './roundhouse up' writes it into {paths.env_file()}")


def _require_database() -> None:
    """That a database of the user's answers; one of ours comes with the stack."""
    url = os.environ.get("DATABASE_URL")
    if not url or not keys.enabled():
        return
    import psycopg

    from roundhouse.proxy.database import address

    try:
        psycopg.connect(address.for_libpq(url), connect_timeout=DATABASE_S).close()
    except (psycopg.Error, ValueError) as error:
        text = " ".join(str(error).split())
        raise CliError(
            f"the database of DATABASE_URL ({address.where(url)}) does not let us in: {text}; mend the address, "
            "or remove it to have a local database"
        ) from error


def _require_free_ports(settings: Settings) -> None:
    left = {record.port for record in read_records(paths.engine_records()) if record.members()}
    ports = {paths.port(): "the gateway; set ROUNDHOUSE_PORT"}
    for entry in settings.models.values():
        if entry.launcher.port not in left:  # an engine that outlived its residency: the next one takes it over
            ports[entry.launcher.port] = f"the engine of {entry.name}; change launcher.port"
    for port, use in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise CliError(
                    f"port {port} is in use by another program; it is for {use}, or end that program"
                ) from error


def _prepare(settings: Settings, choice: Literal["auto", "hub", "tiny"]) -> str | None:
    """Have the weights there; a line that the user should see, if there is one."""
    from roundhouse.launchers.weights import WeightsError, prepare

    try:
        chosen = prepare(settings, choice, lambda text: click.echo(f"  {text}"))
    except WeightsError as error:
        raise CliError(str(error)) from error
    os.environ["ROUNDHOUSE_MODELS"] = chosen.source.value
    return chosen.notice


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    """Run the Procfile under honcho, in a session of its own: Ctrl-C is for us alone."""
    (paths.run_dir() / "config").write_text(f"{settings.path}\n")
    log = paths.log_dir() / "stack.log"
    env = surroundings.of_service(surroundings.Service.ALL)
    env |= {pids.MARK: str(paths.home()), "ROUNDHOUSE_HOME": str(paths.home())}
    env |= {"ROUNDHOUSE_PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"}
    argv = [sys.executable, "-m", "honcho", "-e", os.devnull, "-f", str(paths.project_root() / "Procfile"), "start"]
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        return subprocess.Popen(
            argv, cwd=Path.cwd(), env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def _wait(stack: subprocess.Popen[bytes]) -> None:
    """Wait until every service answers, and say so as each does. Raises CliError if one does not."""
    began = time.monotonic()
    pending: dict[str, Callable[[], bool]] = {
        "redis": _redis_answers,
        **({"postgres": _postgres_answers} if keys.own_database() else {}),
        "residency": _residency_answers,
        "gateway": lambda: _is_up(POLL_S * 4),
    }
    while pending:
        for name in [name for name, answers in pending.items() if answers()]:
            del pending[name]
            click.echo(f"  {name:<10} ready after {time.monotonic() - began:.1f} s")
        if stack.poll() is not None:
            raise CliError(f"a service did not come up\n{_log_end()}")
        if time.monotonic() - began > START_S:
            raise CliError(f"no answer from {', '.join(pending)} within {START_S:.0f} s\n{_log_end()}")
        time.sleep(POLL_S)


def _redis_answers() -> bool:
    if os.environ.get("REDIS_URL"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(redis_socket())) == 0


def _postgres_answers() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(cluster.socket())) == 0


def _residency_answers() -> bool:
    with suppress(NotRunning):
        return bool(control.status())
    return False


def _log_end() -> str:
    lines = (paths.log_dir() / "stack.log").read_text(errors="replace").splitlines()
    return "\n".join(["the end of its log ('roundhouse logs' has all of it):", *(f"  {x}" for x in lines[-LOG_LINES:])])


def _say_where(settings: Settings, notice: str | None) -> None:
    by_model: dict[str, list[str]] = {}
    for alias, model in settings.aliases.items():
        by_model.setdefault(model, []).append(alias)
    width = max(len(name) for name in settings.models)
    origin = base_url().removesuffix("/v1")
    click.echo(f"\nRoundhouse answers at {base_url()}  (status: {origin}/residency/)")
    for name, entry in settings.models.items():
        click.echo(f"  {name:<{width}}  {', '.join(by_model.get(name, [])):<10}  {_what(entry.launcher)}")
    if keys.enabled():
        click.echo(f"Keys, usage and logs: {origin}/ui  (user and password are in {paths.env_file()})")
    if notice:
        click.echo(f"Note: {notice}.")
    script = "./roundhouse" if paths.in_checkout() else "roundhouse"
    alias = next(iter(settings.aliases), next(iter(settings.models)))
    click.echo(f"The key is in {paths.env_file()}. To use it here, paste:\n")
    click.echo(f'  eval "$({script} env)"')
    body = f'{{"model": "{alias}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    click.echo(
        f'  curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" '
        f"-H 'Content-Type: application/json' -d '{body}'\n"
    )


def _what(launcher: Any) -> str:
    return str(launcher.model) if launcher.kind == "vllm" else Path(launcher.argv[0]).name
