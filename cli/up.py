"""``roundhouse up``: check, prepare, start, wait, and say where it is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

import click
from psutil import Error, Process

from roundhouse.cli import readiness, started, told, whereabouts
from roundhouse.cli.down import bring_down
from roundhouse.cli.env import base_url
from roundhouse.cli.errors import REFUSED, USAGE, CliError, NotRunning
from roundhouse.cli.fit import require_card, require_fit
from roundhouse.cli.started import Started
from roundhouse.cli.told import say
from roundhouse.config import address, paths, surroundings
from roundhouse.config import virtual_keys as keys
from roundhouse.config.load import ConfigError, load_settings
from roundhouse.config.schema import Settings
from roundhouse.deploy.services import honcho, pids
from roundhouse.deploy.setup import choice
from roundhouse.launchers.process import log as logs
from roundhouse.launchers.process.records import read_records

DATABASE_S = 10
"""How long a database of the user's may take to answer."""

POLL_S = 0.05

COMING_BACK_S = 30.0
"""How long a gateway that runs and does not answer may take: its worker has died, and imports LiteLLM again."""

LEFT_S = 15.0
"""How long a 'down' elsewhere may take from the end of the process manager to the end of everything."""


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
    told.listen()
    paths.load_env_file()
    chosen = bool(profile or os.environ.get("ROUNDHOUSE_CONFIG"))
    with ExitStack() as lock:
        lock.enter_context(started.alone(_say_who_starts))
        if _runs():
            _say_that_it_runs(profile, chosen)
            return
        stack = _bring_up(profile, models)
        if not detach:
            _attend(stack, lock.close)


def _bring_up(profile: paths.Profile | None, models: Literal["auto", "hub", "tiny"]) -> subprocess.Popen[bytes]:
    """Check, prepare, start and wait; nothing is left of a start that fails or is broken off."""
    _choose(profile)
    if not paths.in_checkout():  # in a checkout ./roundhouse has done it
        _set_up(models)
        paths.load_env_file()
    require_card()
    settings = _settings()
    _require_secrets()
    _require_database()
    _require_free_ports(settings)
    require_fit(settings, models)
    notice = _prepare(settings, models)
    record = Started.of(settings)
    record.write()
    try:
        stack = _start(settings)
        readiness.wait_for_services(stack)
        readiness.wait_for_host(stack)
        _say_where(record, notice)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            say("\nstopping", err=True)
        by_down = not isinstance(error, KeyboardInterrupt) and started.running() is None
        with suppress(NotRunning):
            bring_down(force=False, wanted=isinstance(error, KeyboardInterrupt))
        if by_down:
            raise CliError("stopped by 'roundhouse down' before it was ready") from error
        raise
    return stack


def _attend(stack: subprocess.Popen[bytes], ready: Callable[[], None]) -> None:
    """Call ``ready``; stay until the stack ends, or until told to end it. Raises CliError if it ended by itself."""
    try:
        ready()
        say("Ctrl-C stops it.")
        stack.wait()
    except KeyboardInterrupt:
        say("\nstopping; Ctrl-C again cuts running answers", err=True)
        with suppress(NotRunning):
            bring_down(force=False)
        say("down")
        return
    if started.running() is None:
        deadline = time.monotonic() + LEFT_S
        while pids.ours() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        say("stopped by 'roundhouse down'")
        return
    text = readiness.why_it_ended()
    with suppress(NotRunning):
        bring_down(force=False, wanted=False)
    raise CliError(text)


def _say_who_starts(pid: int) -> None:
    say(f"it is being started by {f'process {pid}' if pid else 'another process'}; waiting for that", err=True)


def _runs() -> bool:
    """Whether it runs already. Raises CliError if only parts of it do."""
    whereabouts.follow()
    if readiness.is_up():
        return True
    if pids.recorded("proxy") is not None and pids.recorded("residency") is not None:
        say("it runs, but the gateway does not answer just now; waiting for it", err=True)
        deadline = time.monotonic() + COMING_BACK_S
        while pids.recorded("proxy") is not None and time.monotonic() < deadline:
            if readiness.is_up():
                return True
            time.sleep(POLL_S)
    if left := pids.ours():
        raise CliError(f"parts of an earlier run are still there ({_names(left)}); 'roundhouse down' ends them")
    return False


def _names(processes: list[Process]) -> str:
    """The services that ``processes`` are, or else their number."""
    pids_ = {process.pid for process in processes}
    named = {name: pids.recorded(name) for name in ("redis", "postgres", "residency", "proxy")}
    found = [f"{name}, pid {it.pid}" for name, it in named.items() if it is not None and it.pid in pids_]
    return "; ".join(found) or f"{len(processes)} processes, the first with pid {min(pids_)}"


def _say_that_it_runs(profile: paths.Profile | None, chosen: bool) -> None:
    """Say what runs, and what has changed since. Raises CliError where another YAML is asked for than the one it runs.

    ``chosen``: the YAML is named, by ``profile`` or in the environment, and not only the machine's default.
    """
    record = started.running()
    if record is None:  # by the Procfile alone
        say(f"Roundhouse runs already, at {base_url()}.")
        return
    since = time.strftime("%d %b %H:%M", time.localtime(record.at))
    wished = paths.default_config_file(profile) if profile else paths.config_file()
    if chosen and wished != record.config:
        raise CliError(
            f"it runs already, with {record.config} (since {since}), not with {wished}; {started.TAKE_OVER}", REFUSED
        )
    say(f"Roundhouse runs already, with {record.config} (since {since}); 'roundhouse down' stops it.")
    _say_where(record, record.changes())


def _set_up(models: str) -> None:
    """Make the engine environment, Redis and the secrets of an installed wheel. Raises CliError."""
    from roundhouse.deploy.setup.errors import SetupError
    from roundhouse.deploy.setup.steps import OnCard, ensure

    engine = paths.engine_kind()
    on_card = OnCard(paths.config_file(), weights=models != "tiny") if engine is choice.Kind.CUDA else None
    try:
        ensure(
            ("engine", "tools", "keys", "secrets"),
            engine=engine,
            on_card=on_card,
            project_root=paths.home(),
            env_path=paths.env_file(),
        )
    except SetupError as error:
        raise CliError(str(error)) from error


def _choose(profile: paths.Profile | None) -> None:
    """Settle the configuration, for us and what we start. Raises CliError where it is for a card and there is none."""
    if profile in paths.FOR_A_CARD and not paths.has_nvidia_card():
        remedy = f"'up --profile cpu' needs none; 'plan --profile {profile} --device 16GiB' plans for a card elsewhere"
        raise CliError(f"the set-up {profile!r} is for an NVIDIA card, and the driver shows none here; {remedy}", USAGE)
    if profile is not None:
        os.environ["ROUNDHOUSE_CONFIG"] = str(paths.default_config_file(profile))
    os.environ["ROUNDHOUSE_CONFIG"] = str(paths.config_file())


def _settings() -> Settings:
    """Read the YAML. Raises CliError with all faults."""
    try:
        address.origin()
        paths.workers()
        keys.enabled()
        return load_settings(paths.config_file())
    except (ConfigError, ValueError) as error:
        raise CliError(str(error), USAGE) from error


def _require_secrets() -> None:
    for name in ("LITELLM_MASTER_KEY", "ROUNDHOUSE_ENGINE_KEY", "REDIS_PASSWORD"):
        if not os.environ.get(name):
            raise CliError(f"{name} is not set; './roundhouse up' writes it into {paths.env_file()}")


def _require_database() -> None:
    """That a database of the user's answers, and is meant; one of ours comes with the stack."""
    url = os.environ.get("DATABASE_URL")
    if not url or not keys.enabled():
        return
    import psycopg

    from roundhouse.proxy.database import address, foreign

    try:
        psycopg.connect(address.for_libpq(url), connect_timeout=DATABASE_S).close()
        foreign.require_ours(url)
    except foreign.ForeignDatabase as error:
        raise CliError(str(error)) from error
    except (psycopg.Error, ValueError) as error:
        text = " ".join(str(error).split())
        raise CliError(
            f"cannot connect to the database of DATABASE_URL ({address.where(url)}): {text}; correct the address, "
            "or unset it to use a local database"
        ) from error


def _require_free_ports(settings: Settings) -> None:
    left = {record.port for record in read_records(paths.engine_records()) if record.members()}
    ports = {paths.port(): "the gateway; set ROUNDHOUSE_PORT"}
    for entry in settings.models.values():
        if entry.launcher.port not in left:  # an engine that outlived its residency: the next one takes it over
            ports[entry.launcher.port] = f"the engine of {entry.name}; change launcher.port"
    for port, use in ports.items():
        host = address.host() if port == paths.port() else address.DEFAULT_HOST
        try:
            address.bound(host, port).close()
        except OSError as error:
            text = f"port {port} is in use by {_user_of(port)}; it is for {use}, or end that one"
            if error.errno != errno.EADDRINUSE:
                text = f"cannot listen on {host}, port {port} ({error.strerror}); it is for {use}, or ROUNDHOUSE_HOST"
            raise CliError(text) from error


def _user_of(port: int) -> str:
    """Who listens on ``port``, for a person."""
    process = pids.listener(port)
    if process is None:
        return "another program"
    if home := pids.home_of(process):
        folder = Path(home)
        return f"another Roundhouse, of {folder.parent if folder.name == '.roundhouse' else folder} (pid {process.pid})"
    with suppress(Error):
        return f"another program, {process.name()} (pid {process.pid})"
    return "another program"


def _prepare(settings: Settings, choice: Literal["auto", "hub", "tiny"]) -> str | None:
    """Have the weights there; a line that the user should see, if there is one."""
    from roundhouse.launchers.vllm.weights import WeightsError, prepare

    try:
        chosen = prepare(settings, choice, lambda text: say(f"  {text}"))
    except WeightsError as error:
        raise CliError(str(error)) from error
    os.environ["ROUNDHOUSE_MODELS"] = chosen.source.value
    return chosen.notice


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    """Run the Procfile under honcho, in a session of its own: Ctrl-C is for us alone."""
    log = paths.log_dir() / "stack.log"
    logs.rotate(log, honcho.KEEP)  # of a run that crashed, what it said is wanted
    env = surroundings.of_service(surroundings.Service.ALL)
    env |= {pids.MARK: str(paths.home()), "ROUNDHOUSE_HOME": str(paths.home())}
    env |= {"ROUNDHOUSE_PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"}
    argv = [sys.executable, "-m", "roundhouse.deploy.services.honcho", str(log), "-e", os.devnull]
    argv += ["-f", str(procfile()), "start"]
    with os.fdopen(logs.open_for_writing(log), "wb") as out:
        return subprocess.Popen(
            argv, cwd=Path.cwd(), env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def procfile() -> Path:
    """What is started."""
    return paths.project_root() / "Procfile"


def _say_where(record: Started, notice: str | None) -> None:
    width = max(len(name) for name in record.models)
    origin = base_url().removesuffix("/v1")
    lines = [f"\nRoundhouse answers at {base_url()}  (status: {origin}/residency/)"]
    for name, it in record.models.items():
        lines.append(f"  {name:<{width}}  {', '.join(it.aliases):<10}  {it.what}")
    if keys.enabled() and not keys.own_database():
        from roundhouse.proxy.database import address as databases

        lines.append(f"Database: {databases.where(os.environ['DATABASE_URL'])}, as DATABASE_URL says")
    if keys.enabled():
        lines.append(f"Keys, usage and logs: {origin}/ui  (user and password are in {paths.env_file()})")
    if notice:
        lines.append(f"Note: {notice}.")
    script = "./roundhouse" if paths.in_checkout() else "roundhouse"
    alias = next(iter(record.aliases), next(iter(record.models)))
    lines.append(f"The key is in {paths.env_file()}. To use it here, paste:\n")
    lines.append(f'  eval "$({script} env)"')
    body = f'{{"model": "{alias}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    lines.append(
        f'  curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" '
        f"-H 'Content-Type: application/json' -d '{body}'\n"
    )
    say("\n".join(lines))
