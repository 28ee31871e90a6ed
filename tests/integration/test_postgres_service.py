"""The Procfile's `postgres`: a real server, private, never root's, back after a crash, gone when its line ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from click.testing import CliRunner

from roundhouse.cli.db import command as db
from roundhouse.deploy.services import cluster
from tests.support.database import require_parts
from tests.support.waiting import gone, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.litellm]
DEADLINE_S = 60.0


class Service:
    """`python -m roundhouse.deploy.services.postgres` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.line: subprocess.Popen[str] | None = None

    def start(self, **environment: str) -> subprocess.Popen[str]:
        with (self.home / "line.log").open("a") as log:
            self.line = subprocess.Popen(
                [sys.executable, "-m", "roundhouse.deploy.services.postgres"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                text=True,
            )
        return self.line

    def up(self) -> None:
        self.start()
        wait_for(self.answers, f"PostgreSQL answers\n{self.log()}", DEADLINE_S)

    def stop(self) -> None:
        if self.line is not None:
            self.line.terminate()
            self.line.wait(DEADLINE_S)

    def log(self) -> str:
        return (self.home / "line.log").read_text(errors="replace")

    def answers(self) -> bool:
        try:
            return self.ask("SELECT 1") == [(1,)]
        except (psycopg.Error, cluster.ClusterError):
            return False

    def ask(self, query: str) -> list[Any]:
        with psycopg.connect(cluster.url(), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def server(self) -> psutil.Process:
        return psutil.Process(json.loads((self.home / "run" / "postgres-server.pid").read_text())["pid"])


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    require_parts()
    with tempfile.TemporaryDirectory(prefix="rh-") as folder:
        monkeypatch.setenv("ROUNDHOUSE_HOME", folder)
        monkeypatch.delenv("DATABASE_URL", raising=False)
        it = Service(Path(folder))
        yield it
        it.stop()
        cluster.discard()


def as_nobody(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command as an account that is neither ours nor the server's."""
    return subprocess.run(argv, user=1, group=1, extra_groups=[], capture_output=True, text=True, check=False, cwd="/")


def test_it_is_private_checked_and_not_roots_with_the_password_out_of_sight(service: Service) -> None:
    service.up()
    server = service.server()
    assert server.uids().real != 0
    assert server.net_connections(kind="inet") == []
    password = (cluster.place() / "password").read_text().strip()
    assert len(password) > 40
    for process in (server, *server.children()):
        assert password not in " ".join(process.cmdline())
        assert password not in process.environ().values()
    assert password not in service.log()
    for path, mode in (
        (cluster.data(), 0o700),
        (cluster.socket_folder(), 0o700),
        (cluster.place() / "password", 0o600),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path
    assert stat.S_IMODE(cluster.socket().stat().st_mode) == 0o700
    assert service.ask("SHOW data_checksums") == [("on",)]
    assert service.ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.url().replace(password, "wrong"))
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba.conf entry"):
        psycopg.connect(cluster.url().replace("//roundhouse:", "//postgres:"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_another_local_account_gets_neither_to_the_socket_nor_to_the_files(service: Service) -> None:
    service.up()
    for path in (cluster.socket(), cluster.data() / "PG_VERSION", cluster.place() / "password"):
        done = as_nobody("/bin/cat", str(path))
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
    script = f"import socket; socket.socket(socket.AF_UNIX).connect({str(cluster.socket())!r})"
    assert "PermissionError" in as_nobody("/usr/bin/env", "python3", "-c", script).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give the server another account")
def test_programs_that_the_servers_account_cannot_reach_are_copied(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = cluster.parts().postgres.parents[2]
    hidden = service.home / "hidden"  # the home is root's alone
    shutil.copytree(package, hidden / "postgres", symlinks=True)
    parts = type(cluster.parts())(hidden, cluster.parts().python)
    monkeypatch.setattr(cluster, "parts", lambda: parts)
    monkeypatch.setattr(cluster, "ROOTS_PLACE", Path(tempfile.mkdtemp(prefix="rh-root-", dir="/var/lib")))
    for path in (hidden / "postgres").rglob("*"):  # fetched by somebody careful
        path.chmod(path.stat().st_mode & 0o700)
    umask = os.umask(0o077)
    try:
        copied = cluster.programs()
        assert hidden not in copied.parents
        assert "PostgreSQL" in cluster.run([copied / "postgres", "--version"]).stdout
        assert cluster.programs() == copied
    finally:
        os.umask(umask)
        shutil.rmtree(cluster.ROOTS_PLACE)


def test_killed_it_comes_back_with_what_was_committed(service: Service) -> None:
    service.up()
    service.ask("CREATE TABLE t (i int)")
    service.ask("INSERT INTO t VALUES (1)")
    first = service.server()
    first.kill()
    wait_for(lambda: gone(first), "the server is dead")
    wait_for(lambda: service.answers() and service.server() != first, f"it is back\n{service.log()}", DEADLINE_S)
    assert service.ask("SELECT i FROM t") == [(1,)]


def test_a_killed_line_takes_its_server_along_and_the_next_takes_over(service: Service) -> None:
    service.up()
    service.ask("CREATE TABLE t (i int)")
    server = service.server()
    assert service.line is not None
    service.line.kill()
    service.line.wait()
    wait_for(lambda: gone(server), "the server has ended", DEADLINE_S)
    service.up()
    assert service.ask("SELECT count(*) FROM t") == [(0,)]


def test_told_to_end_it_leaves_nothing_running_and_the_data_clean(service: Service) -> None:
    service.up()
    server = service.server()
    assert service.line is not None
    service.line.send_signal(signal.SIGTERM)
    assert service.line.wait(DEADLINE_S) == 0
    assert gone(server)
    assert not cluster.socket().exists()
    assert "shut down" in cluster.run([cluster.programs() / "pg_controldata", cluster.data()]).stdout


def test_it_runs_where_its_pid_cannot_be_written(service: Service) -> None:
    (service.home / "run" / "postgres-server.pid.new").mkdir(parents=True)  # a disk may be full
    service.up()


def test_a_lost_password_is_made_anew(service: Service) -> None:
    service.up()
    service.stop()
    (cluster.place() / "password").unlink()
    service.up()
    assert service.answers()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data lies outside the home")
def test_a_home_that_is_gone_takes_its_keys_along(service: Service) -> None:
    """As root the data is elsewhere: with the home removed and made again, deleted keys were back and valid."""
    service.up()
    service.ask("CREATE TABLE t (i int)")
    service.stop()
    assert cluster.place() not in [folder for folder, _ in cluster.left_behind()]
    assert cluster.elsewhere() == cluster.place()  # 'down' says it
    for name in os.listdir(service.home):
        path = service.home / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert (cluster.place(), str(service.home)) in cluster.left_behind()
    try:
        service.up()
        assert service.ask("SELECT to_regclass('t')") == [(None,)]
        assert "was set aside" in service.log()
        assert cluster.place() not in [folder for folder, _ in cluster.left_behind()]
        said = CliRunner().invoke(db, ["where"])
        assert str(cluster.data()) in said.output
        assert re.search(rf"rm -r {cluster.place()}\.left-\S+  # \d+ MB, of {service.home}\n", said.output)
    finally:
        for folder in cluster.place().parent.glob(f"{cluster.place().name}.left-*"):
            shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's data lies outside the home")
def test_what_an_earlier_release_has_made_stays_the_homes(service: Service) -> None:
    service.up()
    service.ask("CREATE TABLE t (i int)")
    service.stop()
    for mark in (service.home / cluster.MARK, cluster.place() / cluster.MARK, cluster.place() / cluster.HOME):
        mark.unlink()
    service.up()
    assert service.ask("SELECT count(*) FROM t") == [(0,)]
    assert (service.home / cluster.MARK).read_text() == (cluster.place() / cluster.MARK).read_text()


def test_data_of_another_major_version_is_refused_and_left_alone(service: Service) -> None:
    service.up()
    service.stop()
    (cluster.data() / "PG_VERSION").write_text("16\n")
    line = service.start()
    assert line.wait(DEADLINE_S) == 2
    assert "was made by PostgreSQL 16, and this is 18" in service.log()
    assert "db restore" in service.log()
    assert (cluster.data() / "base").is_dir()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"ROUNDHOUSE_KEYS": "off"}, "virtual keys are off"),
        ({"DATABASE_URL": "postgresql://x/y"}, "DATABASE_URL is set"),
    ],
)
def test_where_it_is_not_wanted_it_stays_and_makes_nothing(
    service: Service, setting: dict[str, str], expected: str
) -> None:
    line = service.start(**setting)
    wait_for(lambda: expected in service.log(), "it says why")
    assert line.poll() is None
    assert not cluster.data().exists()


def _mount(place: Path) -> None:
    argv = ["mount", "-t", "tmpfs", "-o", "size=128m,mode=711", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs root, and is not allowed everywhere")


def test_a_full_disk_is_said_and_does_no_harm(service: Service) -> None:
    place = cluster.place()
    _mount(place)
    try:
        service.up()
        service.ask("CREATE TABLE t (i int PRIMARY KEY, t text)")
        service.ask("INSERT INTO t VALUES (1, 'before')")
        filler = place / "filler"
        room = shutil.disk_usage(place).free
        filler.write_bytes(b"\0" * (room - 2 * 2**20))
        with pytest.raises(psycopg.Error, match=r"No space left on device|server closed|connection"):
            service.ask("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(2, 50000) g")
        filler.unlink()
        wait_for(service.answers, f"it is back once there is room\n{service.log()}", DEADLINE_S)
        assert "No space left on device" in service.log()
        assert service.ask("SELECT i, t FROM t") == [(1, "before")]
        service.ask("INSERT INTO t VALUES (2, 'after')")
        service.stop()
        checked = cluster.run([cluster.programs() / "pg_checksums", "--check", "-D", cluster.data()])
        assert "Bad checksums:  0" in checked.stdout
    finally:
        service.stop()
        subprocess.run(["umount", str(place)], check=True)
