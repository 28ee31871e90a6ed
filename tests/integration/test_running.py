"""What the commands say of a stack that runs: what it was started with, what has changed since, where it listens."""

from __future__ import annotations

import copy
import http.server
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from roundhouse.cli import control
from tests.support import fakes
from tests.support.light import Home
from tests.support.stack import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def running() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="rh-", ignore_cleanup_errors=True) as folder:
        it = Home(Path(folder))
        up = it.run("up", "--detach")
        assert up.returncode == 0, up.stderr
        yield it
        it.end()


@pytest.fixture
def home(running: Home) -> Iterator[Home]:
    """The one that runs; its YAML is again afterwards what it was started with."""
    yield running
    running.write(running.document)


def with_mine(home: Home) -> None:
    """Add a model to the YAML, and change one."""
    document = copy.deepcopy(home.document)
    document["model_list"] += fakes.config({"mine": []})["model_list"]
    document["model_list"][0]["model_info"]["launcher"]["stop_grace_s"] = 3
    home.write(document)


def test_up_again_says_what_runs(home: Home) -> None:
    again = home.run("up", "--detach")
    assert again.returncode == 0
    assert f"Roundhouse runs already, with {home.config} (since " in again.stdout
    assert "changed" not in again.stdout
    assert home.run("up").returncode == 0  # the attached form does not stay with what it has not started


def test_what_an_edit_has_changed_is_said_and_not_called_served(home: Home) -> None:
    """The new model was listed as served, and then asked for in vain."""
    with_mine(home)
    note = f"{home.config} has changed since it was started (new: mine; changed: a): 'down' and 'up' take the change"
    up, status = home.run("up", "--detach"), home.run("status")
    assert (up.returncode, status.returncode) == (0, 0)
    assert f"Note: {note}" in up.stdout
    assert "  mine" not in up.stdout
    assert f"note: {note}" in status.stdout
    switch = home.run("switch", "mine")
    assert (switch.returncode, note in switch.stderr, switch.stderr.count("\n")) == (2, True, 1)


def test_a_yaml_that_is_broken_meanwhile_hinders_no_command(home: Home) -> None:
    home.config.write_text("model_list: [")
    up = home.run("up", "--detach")
    assert (up.returncode, "has 1 fault now: 'up' would refuse it" in up.stdout) == (0, True)
    assert home.run("switch", "second").returncode == 0  # an alias: as it was at the start
    assert "fake.py" in home.run("logs", "second").stdout
    assert home.run("status").returncode == 0


def test_a_comment_is_no_change(home: Home) -> None:
    home.config.write_text(f"# mine\n{home.config.read_text()}")
    assert "changed" not in home.run("status").stdout


def test_another_yaml_than_the_one_that_runs_is_refused(home: Home) -> None:
    other = home.folder / "other.yaml"
    other.write_text(home.config.read_text())
    up = home.run("up", "--detach", ROUNDHOUSE_CONFIG=str(other))
    assert up.returncode == 4
    assert up.stderr.startswith(f"roundhouse: it runs already, with {home.config} (since ")
    assert f"not with {other}" in up.stderr


def test_the_address_is_the_running_gateways_in_every_shell(home: Home) -> None:
    """Only ``up`` had ROUNDHOUSE_PORT, and what it printed led the next shell to port 7000."""
    env = home.run("env", ROUNDHOUSE_PORT=str(free_port()), ROUNDHOUSE_HOST="127.0.0.2")
    assert f"OPENAI_BASE_URL=http://127.0.0.1:{home.port}/v1\n" in env.stdout
    again = home.run("up", "--detach", ROUNDHOUSE_PORT=str(free_port()))
    assert f"Roundhouse answers at http://127.0.0.1:{home.port}/v1" in again.stdout


def test_a_command_says_whose_answers_it_waits_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """``switch`` was silent for as long as an answer ran."""
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(home.folder))
    with control.client(timeout=30) as api, api.stream("POST", "/lease", json={"model": "a"}) as answer:
        lines = answer.iter_lines()  # the lease is given back when nobody reads them any more
        while '"granted"' not in next(lines):
            pass
        switch = home.start("switch", "b")
        assert switch.stdout is not None
        said = ""
        while "waiting for 1 running answer of a to end" not in said:
            line = switch.stdout.readline()
            assert line, said
            said += line
    assert switch.communicate(timeout=30)[0].endswith("b is ready\n")


def test_a_port_that_another_roundhouse_has_is_said_with_its_folder(home: Home) -> None:
    with tempfile.TemporaryDirectory(prefix="rh-") as folder:
        other = Home(Path(folder))
        up = other.run("up", "--detach", ROUNDHOUSE_PORT=str(home.port))
        assert up.returncode == 1
        assert f"port {home.port} is in use by another Roundhouse, of {home.folder} (pid " in up.stderr
        assert up.stderr.count("\n") == 1


@contextmanager
def stranger() -> Iterator[tuple[int, list[str]]]:
    """Another program: its port, and what it is told."""
    told: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(str(self.headers))
            self.send_error(404)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], told
        server.shutdown()


@pytest.mark.parametrize("command", ["keys list", "keys create x", "ui --print"])
def test_no_key_is_sent_to_a_port_that_is_not_ours(command: str) -> None:
    with tempfile.TemporaryDirectory(prefix="rh-") as folder, stranger() as (port, told):
        it = Home(Path(folder)).run(*command.split(), ROUNDHOUSE_PORT=str(port), ROUNDHOUSE_KEYS="on")
    assert (it.returncode, it.stderr) == (3, "roundhouse: not running; start it with 'roundhouse up'\n")
    assert told == []


def test_no_key_is_sent_to_who_has_taken_the_port_of_a_gateway_that_died(home: Home) -> None:
    with stranger() as (port, told):
        home.run("keys", "list", ROUNDHOUSE_PORT=str(port), ROUNDHOUSE_KEYS="on")
    assert told == []  # it asks the one that the kernel names
    assert home.key in (home.folder / "seen.txt").read_text()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_is_one_line_with_the_remedy() -> None:
    with tempfile.TemporaryDirectory(prefix="rh-") as folder:
        home = Home(Path(folder))
        Path(folder).chmod(0o500)
        up = home.run("up", "--detach")
        Path(folder).chmod(0o700)
    assert (up.returncode, up.stderr.count("\n"), "ROUNDHOUSE_HOME" in up.stderr) == (1, 1, True)
