"""The commands as a person uses them, against a stack with trivial engines."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import psutil
import psycopg
import pytest
import yaml

from roundhouse.deploy.services import cluster
from tests.support import fakes
from tests.support.database import postgres, require_parts
from tests.support.processes import command, of_home, words
from tests.support.stack import free_port
from tests.support.waiting import gone, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROUNDHOUSE = [sys.executable, "-m", "roundhouse.cli.main"]


class Home:
    """A home of its own, and the commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.key = "sk-" + secrets.token_hex(16)
        self.config = folder / "config.yaml"
        document = fakes.config({"a": [], "b": []})
        document["router_settings"]["model_group_alias"] = {"second": "b"}
        self.config.write_text(yaml.safe_dump(document), encoding="utf-8")
        self.env = {
            **os.environ,
            "ROUNDHOUSE_HOME": str(folder),
            "ROUNDHOUSE_PORT": str(self.port),
            "ROUNDHOUSE_CONFIG": str(self.config),
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_SALT_KEY": "sk-" + secrets.token_hex(16),
            "ROUNDHOUSE_ENGINE_KEY": secrets.token_hex(16),
            "REDIS_PASSWORD": secrets.token_hex(16),
            "ROUNDHOUSE_KEYS": "off",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ROUNDHOUSE, *arguments], env=self.env, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*ROUNDHOUSE, *arguments], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def ask(self, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": str(time.time_ns())}]}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        return httpx.post(url, json=body, headers={"authorization": f"Bearer {self.key}"}, timeout=60)

    def processes(self) -> list[psutil.Process]:
        return of_home(self.folder)


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="rh-", ignore_cleanup_errors=True) as folder:
        it = Home(Path(folder))
        yield it
        it.run("down", "--force")
        left = [command(p) for p in it.processes()]
        for process in it.processes():
            process.kill()
        assert not left


def test_a_day_with_the_commands(home: Home) -> None:
    up = home.run("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    assert f"http://127.0.0.1:{home.port}/v1" in up.stdout
    assert home.key not in up.stdout + up.stderr
    again = home.run("up", "--detach")
    assert (again.returncode, f"http://127.0.0.1:{home.port}/v1" in again.stdout) == (0, True)

    env = home.run("env").stdout
    assert env == f"export OPENAI_BASE_URL=http://127.0.0.1:{home.port}/v1\nexport OPENAI_API_KEY={home.key}\n"

    assert home.run("switch", "a").returncode == 0
    status = json.loads(home.run("status", "--json").stdout)
    assert status["devices"][0]["resident"] == "a"
    assert "ready" in home.run("status").stdout
    assert home.ask("b").status_code == 200
    unknown = home.run("switch", "bb")
    assert (unknown.returncode, "did you mean 'b'?" in unknown.stderr) == (2, True)
    assert home.run("unload").returncode == 0
    assert json.loads(home.run("status", "--json").stdout)["devices"][0]["resident"] is None
    assert "fake.py" in home.run("logs", "b").stdout
    assert "fake.py" in home.run("logs", "second").stdout
    assert "residency" in home.run("logs").stdout
    assert home.run("logs", "nope").returncode == 2
    assert home.key not in (home.folder / "log" / "stack.log").read_text()

    down = home.run("down")
    assert down.returncode == 0, down.stderr
    assert home.processes() == []
    for memory in ("callers.json", "calibration.json"):
        assert stat.S_IMODE((home.folder / memory).stat().st_mode) == 0o600
    assert home.run("down").returncode == 3
    assert home.run("status").returncode == 3


def test_down_leaves_nothing_though_everything_else_was_killed(home: Home) -> None:
    assert home.run("up", "--detach").returncode == 0
    assert home.ask("a").status_code == 200
    others = [p for p in home.processes() if "tests/fakes/engine.py" not in command(p)]
    for process in others:
        with suppress(psutil.NoSuchProcess):  # its parent's death has ended it
            process.kill()
    wait_for(lambda: all(gone(process) for process in others), "all but the engine are gone")
    (engine,) = home.processes()
    assert "tests/fakes/engine.py" in command(engine)
    assert home.run("down").returncode == 0
    assert home.processes() == []


def test_what_an_earlier_run_left_is_taken_over_by_the_next(home: Home) -> None:
    assert home.run("up", "--detach").returncode == 0
    assert home.ask("a").status_code == 200
    pid = json.loads(home.run("status", "--json").stdout)["models"]["a"]["pid"]
    for process in home.processes():
        if process.pid != pid:
            process.kill()
    up = home.run("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    assert json.loads(home.run("status", "--json").stdout)["models"]["a"]["pid"] == pid
    assert home.ask("a").status_code == 200


def test_up_with_keys_in_a_database_of_ones_own(home: Home) -> None:
    with postgres() as url:
        other = {"ROUNDHOUSE_KEYS": "on", "UI_PASSWORD": "a b c", "DATABASE_URL": f"{url}?connection_limit=5"}
        home.env |= other
        up = home.run("up", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        address = f"http://127.0.0.1:{home.port}/ui"
        assert f"Keys, usage and logs: {address}" in up.stdout
        assert "Database: " in up.stdout
        assert unquote(urlsplit(url).password or "-") not in up.stdout
        assert httpx.get(address, follow_redirects=True).status_code == 200
        ui = home.run("ui", "--print")
        assert (ui.returncode, ui.stdout) == (0, f"{address}/\n")
        assert "a b c" not in ui.stdout + ui.stderr
        created = home.run("keys", "create", "one", "--json")
        home.key = json.loads(created.stdout)["key"]
        assert home.ask("a").status_code == 200
        with psycopg.connect(url) as connection:
            names = connection.execute('SELECT key_alias FROM "LiteLLM_VerificationToken"').fetchall()
            assert ("one",) in names
        assert not any("bin/postgres" in command(process) for process in home.processes())
        backup = home.run("db", "backup", str(home.folder / "x"))
        assert (backup.returncode, "DATABASE_URL" in backup.stderr) == (4, True)
        assert home.run("down").returncode == 0
        assert home.processes() == []
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE customers (id int)")
        up = home.run("up", "--detach")
        assert (up.returncode, up.stderr.count("\n")) == (1, 1)
        assert "holds tables of another program (public.customers)" in up.stderr
    home.env["DATABASE_URL"] = "postgresql://somebody:hidden@127.0.0.1:9/none"
    up = home.run("up", "--detach")
    assert (up.returncode, up.stderr.count("\n")) == (1, 1)
    assert "cannot connect to the database of DATABASE_URL (127.0.0.1:9/none)" in up.stderr
    assert "hidden" not in up.stderr


def test_what_a_stack_writes_is_little_kept_after_a_crash_and_named_in_the_docs(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed request wrote 11.8 kB, nothing was ever turned over, and the next start emptied the log of a crash."""
    require_parts()
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(home.folder))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    document = fakes.config({"a": [], "bad": ["--fail-status", "400"]}, journal=True)
    home.config.write_text(yaml.safe_dump(document), encoding="utf-8")
    home.env |= {"ROUNDHOUSE_KEYS": "on", "UI_PASSWORD": "x"}
    home.env.pop("DATABASE_URL", None)
    log = home.folder / "log" / "stack.log"
    try:
        assert home.run("up", "--detach").returncode == 0
        assert home.ask("a").status_code == 200
        assert home.ask("bad").status_code == 400
        before = log.stat().st_size
        for _ in range(10):
            assert home.ask("bad").status_code == 400
            assert home.ask("unknown").status_code == 400
        wait_for(lambda: log.read_text().count("Invalid model name") == 10, "all is written")
        assert (log.stat().st_size - before) / 20 < 600
        where = home.run("db", "where").stdout
        assert where.startswith(f"{cluster.data()}: ")
        _require_named(home.folder)
        proxy = next(p for p in home.processes() if words(p)[-1:] == ["roundhouse.proxy"])
        proxy.kill()
        wait_for(lambda: not any("honcho" in command(p) for p in home.processes()), "all has ended", 60)
        home.run("down")
        _require_named(home.folder)
        up = home.start("up", "--detach")
        wait_for(log.with_name("stack.log.1").exists, "the log is turned over")
        assert "proxy.1 stopped (rc=-9)" in home.run("logs", "--previous").stdout
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
        _require_named(home.folder)
    finally:
        home.run("down", "--force")
        cluster.discard()


def _require_named(folder: Path) -> None:
    """That the table of docs/OPERATIONS.md has a pattern for every file in a home."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
    table = text.split("| in the home |")[1].split("\n\n")[0]
    patterns = [it for row in table.splitlines()[2:] for it in re.findall(r"`([^`]+)`", row.split("|")[1])]
    made = [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]
    assert "log/stack.log" in made
    made.remove("config.yaml")  # the test's own
    assert not [it for it in made if not any(fnmatchcase(it, pattern) for pattern in patterns)]


def test_ctrl_c_stops_in_order(home: Home) -> None:
    up = home.start("up")
    assert up.stdout is not None
    for line in up.stdout:
        if "Ctrl-C stops it" in line:
            break
    assert home.ask("a").status_code == 200
    up.send_signal(signal.SIGINT)
    assert "down" in up.communicate(timeout=30)[0]
    assert up.returncode == 0
    assert home.processes() == []


def test_a_service_that_ends_takes_up_with_it_and_says_why(home: Home) -> None:
    up = home.start("up")
    assert up.stdout is not None
    for line in up.stdout:
        if "Ctrl-C stops it" in line:
            break
    honcho = [p for p in home.processes() if "honcho" in command(p)]
    proxy = next(p for p in home.processes() if words(p)[-1:] == ["roundhouse.proxy"])
    assert honcho
    proxy.kill()
    text = up.communicate(timeout=60)[0]
    assert up.returncode == 1
    assert "proxy was killed (SIGKILL) and took the others with it" in text
    assert home.processes() == []


def test_a_port_in_use_is_said_in_one_line(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", home.port))
        other.listen()
        up = home.run("up", "--detach")
    assert up.returncode == 1
    assert up.stderr.count("\n") == 1
    assert f"port {home.port} is in use" in up.stderr


def test_a_bad_yaml_is_refused_with_every_fault(home: Home) -> None:
    document = yaml.safe_load(home.config.read_text())
    del document["general_settings"]["cancel_on_disconnect"]
    document["model_list"][0]["model_info"]["launcher"]["prot"] = 1
    home.config.write_text(yaml.safe_dump(document))
    up = home.run("up", "--detach")
    assert up.returncode == 2
    assert "has 2 faults" in up.stderr
    assert "Traceback" not in up.stderr


def test_the_procfile_runs_under_plain_honcho(home: Home) -> None:
    root = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-m", "honcho", "-f", str(root / "Procfile"), "start"]
    env = {**home.env, "ROUNDHOUSE_PYTHON": sys.executable}
    with (home.folder / "honcho.log").open("wb") as log:
        honcho = subprocess.Popen(argv, cwd=root, env=env, stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{home.port}/health/liveliness", timeout=1).status_code == 200
        assert honcho.poll() is None, (home.folder / "honcho.log").read_text()
        return False

    wait_for(answers, "the gateway answers", 60)
    key = next(p for p in home.processes() if words(p)[-1:] == ["roundhouse.proxy"]).environ()["LITELLM_MASTER_KEY"]
    home.key = key  # honcho reads .env itself, and prefers it
    assert home.ask("a").status_code == 200
    honcho.send_signal(signal.SIGINT)
    honcho.wait(30)
    wait_for(lambda: not home.processes(), "nothing is left", 10)


@pytest.mark.parametrize(
    "command", ["", "up", "down", "env", "status", "switch", "unload", "logs", "keys", "db", "ui", "bench"]
)
def test_every_command_has_help(command: str) -> None:
    done = subprocess.run([*ROUNDHOUSE, *command.split(), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage: roundhouse" in done.stdout


@pytest.mark.parametrize("arguments", [["nope"], ["status", "--nope"], ["switch"], ["up", "--profile", "x"]])
def test_wrong_usage_ends_with_code_2_and_no_traceback(arguments: list[str]) -> None:
    done = subprocess.run([*ROUNDHOUSE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_looking_does_not_import_litellm() -> None:
    code = (
        "import sys; from roundhouse.cli import main, status, control; "
        "assert not {'litellm', 'torch'} & sys.modules.keys(), 'slow imports'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
