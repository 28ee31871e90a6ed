"""The journal of residency, and a day of it played again."""

from __future__ import annotations

import errno
import json
import stat
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from roundhouse.bench import journal as replay
from roundhouse.bench import switching
from roundhouse.bench.policies.ours import Ours
from roundhouse.bench.simulation import Simulation
from roundhouse.bench.workload import Workload, WorkloadError, load, parse
from roundhouse.cli.bench import command
from roundhouse.cli.errors import CliError
from roundhouse.residency.machine.facts import Asked, Fact, Gone, Grant, Order, Ticket, Wake, Woke
from roundhouse.residency.server import journal as writing
from roundhouse.residency.server.journal import Journal

WORKLOADS = {it.name: it for it in load(switching.SHIPPED)}
HEADER = {"t": 0, "what": "opened", "clock": 0, "models": {"a": {"device": "gpu0", "slots": None}}, "max_wait_s": 300}


def written(workload: Workload, file: Path, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """Play ``workload`` under our policy, with a journal."""
    models = {name: {"device": "gpu0", "slots": it.slots} for name, it in workload.models.items()}
    journal = Journal(file, models, workload.max_wait_s or 300.0)
    simulation = Simulation(workload, partial(Ours))
    assert isinstance(simulation.router, Ours)
    handle = simulation.router.machine.handle

    def recorded(fact: Fact, now: float) -> list[Order]:
        orders = handle(fact, now)
        journal.record(fact, orders, now)
        return orders

    monkeypatch.setattr(simulation.router.machine, "handle", recorded)
    simulation.run()
    journal.close()
    return simulation


def one_request(journal: Journal, model: str, ticket: int, now: float = 1.0) -> None:
    """Of a caller, answered within a second."""
    journal.record(Asked(Ticket(ticket), model, caller="x"), [Grant(Ticket(ticket))], now)
    journal.record(Gone(Ticket(ticket)), [], now + 1.0)


def lines(*more: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in (HEADER, *more))


@pytest.mark.parametrize("name", ["W2-40", "W3-3", "W4-40"])
def test_a_day_is_the_same_day_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "journal.jsonl"
    day = written(WORKLOADS[name], file, monkeypatch)
    (again,) = replay.workloads(file)
    assert again.requests == len(day.requests)
    for policy in ("ours", "llmux"):
        (first,) = switching.run([WORKLOADS[name]], [policy])
        (second,) = switching.run([again], [policy])
        assert second.figures["loads"] == pytest.approx(first.figures["loads"], abs=1)
        assert second.figures["wait_mean_s"] == pytest.approx(first.figures["wait_mean_s"], rel=0.05, abs=0.05)


def test_it_is_private_and_names_no_caller(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(file, {"a": {"device": "gpu0", "slots": 4}}, 300.0)
    journal.record(Asked(Ticket(1), "a", caller="0123456789abcdef/my session"), [Grant(Ticket(1))], 1.0)
    journal.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert "0123456789abcdef" not in text
    assert "my session" not in text
    assert [json.loads(line)["what"] for line in text.splitlines()] == ["opened", "asked", "granted"]


def test_it_has_a_bound_and_the_part_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LIMIT_BYTES", 2000)
    file = tmp_path / "journal.jsonl"
    journal = Journal(file, {}, 300.0)
    for number in range(200):
        journal.record(Gone(Ticket(number)), [], float(number))
    journal.close()
    assert sorted(it.name for it in tmp_path.iterdir()) == ["journal.jsonl", "journal.old.jsonl"]
    assert all(it.stat().st_size < 2200 for it in tmp_path.iterdir())


def test_what_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "missing" / "journal.jsonl", {}, 300.0)
    for number in range(3):
        journal.record(Gone(Ticket(number)), [], 1.0)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["event=journal_failed"]


def test_a_full_disk_is_one_warning_also_at_the_end_and_what_was_written_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Small(FileIO):
        def write(self, data: Any) -> int:
            room = 1000 - self.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(bytes(data)[:room])

    monkeypatch.setattr(writing, "FileIO", Small)
    file = tmp_path / "journal.jsonl"
    for _ in range(2):
        journal = Journal(file, {"a": {"device": "gpu0", "slots": None}}, 300.0)
        for number in range(20):
            one_request(journal, "a", number)
        journal.close()
        assert file.stat().st_size == 1000
    assert len(caplog.records) == 2
    monkeypatch.undo()  # there is room again, and residency was started again
    journal = Journal(file, {"a": {"device": "gpu0", "slots": None}}, 300.0)
    one_request(journal, "a", 1)
    journal.close()
    assert replay.workloads(file)[0].requests > 2


def test_after_a_crash_in_the_middle_of_a_line_it_goes_on_and_who_asks_again_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, wall = tmp_path / "journal.jsonl", 1e9
    monkeypatch.setattr(writing.time, "time", lambda: wall)
    first = Journal(file, {"a": {"device": "gpu0", "slots": None}}, 300.0)
    one_request(first, "a", 1, now=5000.0)
    first.record(Asked(Ticket(2), "a", caller="x"), [], 5002.0)  # never answered: residency is killed
    first.close()
    with file.open("a") as cut:
        cut.write('{"t":5003,"wh')
    file.chmod(0o644)
    wall -= 3600  # the clock was set back, and after a reboot the other one begins anew
    second = Journal(file, {"a": {"device": "gpu0", "slots": None}}, 300.0)
    one_request(second, "a", 1, now=7.0)
    second.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (day,) = replay.workloads(file)
    assert [(agent.start_s, len(agent.steps)) for agent in day.agents] == [(0, 1), (2, 1)]


def test_what_may_not_switch_and_what_is_no_model_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(file, {"a": {"device": "gpu0", "slots": None}}, 300.0)
    journal.record(Asked(Ticket(1), "a", may_switch=False), [Grant(Ticket(1))], 1.0)
    journal.record(Asked(Ticket(2), "whatever a client sends"), [], 1.0)
    journal.close()
    assert "whatever" not in file.read_text()
    with pytest.raises(WorkloadError, match="no request"):
        replay.workloads(file)


def test_waking_is_a_switch_and_a_restart_is_a_new_clock(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(file, {"a": {"device": "gpu0", "slots": None}}, 300.0)
    journal.record(Asked(Ticket(1), "a", caller="x"), [Wake("a")], 10.0)
    journal.record(Woke("a"), [Grant(Ticket(1))], 14.0)
    journal.record(Gone(Ticket(1)), [], 16.0)
    journal.close()
    asked = {"what": "asked", "ticket": 1, "model": "a", "caller": "y", "weight": 1.0, "max_wait_s": None}
    tomorrow = json.loads(file.read_text().splitlines()[0])["clock"] + 86400
    again = [HEADER | {"clock": tomorrow}, {"t": 1, **asked}, {"t": 1, "what": "granted", "ticket": 1}]
    with file.open("a") as more:
        more.writelines(json.dumps(line) + "\n" for line in again)
        more.write('{"t": 2, "what": "go')  # it was killed in the middle of a line
    (it,) = replay.workloads(file)
    assert it.models["a"].switch_s == 4
    assert [agent.start_s for agent in it.agents] == pytest.approx([0, 86401], abs=1)
    assert it.agents[0].steps[0].service_s == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"journal\.jsonl: there is no request in this journal"),
        (lines(), r"journal\.jsonl: there is no request in this journal"),
        ("hello\n", r"journal\.jsonl:1: not a line of a journal: not JSON"),
        (lines({"t": 1, "what": "asked"}), r"journal\.jsonl:2: not a line of a journal: KeyError: 'weight'"),
        (lines({"t": 1, "what": "sung"}), r"journal\.jsonl:2: .*'sung' is nothing that happens"),
        ('{"what": "gone", "t": 1, "ticket": 1}\n', r"journal\.jsonl:1: .*begins with a line 'opened'"),
        (lines({**HEADER, "models": {"a": 3}}), r"journal\.jsonl:2: not a line of a journal: TypeError"),
        (
            lines() + '{"t": 1, "wh\n' + json.dumps({"t": 2, "what": "gone", "ticket": 1}),
            r"journal\.jsonl:2: .*not JSON",
        ),
        ("[]\n", r"journal\.jsonl:1: not a line of a journal: TypeError"),
    ],
)
def test_what_is_no_journal_is_one_line_with_file_and_line(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_text(text)
    with pytest.raises(WorkloadError, match=fault):
        replay.workloads(file)
    done = CliRunner().invoke(command, ["switching", "--journal", str(file)])
    assert isinstance(done.exception, CliError)
    assert done.exception.code == 2


def test_the_command_plays_a_journal_under_another_constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "journal.jsonl"
    written(WORKLOADS["W2-40"], file, monkeypatch)
    loads = []
    for more in ([], ["--set", "ROUND_TRIP=0"]):
        done = CliRunner().invoke(command, ["switching", "--journal", str(file), "--policy", "ours", "--json", *more])
        (figures,) = json.loads(done.stdout)
        loads.append(figures["loads"])
    assert loads == [4, 30]


def test_two_devices_are_two_workloads(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    models = {"a": {"device": "gpu0", "slots": None}, "b": {"device": "gpu1", "slots": 2}}
    asked = {"what": "asked", "ticket": 1, "caller": "", "weight": 4.0, "max_wait_s": None}
    file.write_text(lines({**HEADER, "models": models}, *({"t": 1, **asked, "model": name} for name in "ab")))
    first, second = replay.workloads(file)
    assert (first.name, second.name) == ("journal gpu0", "journal gpu1")
    assert (list(second.models), second.models["b"].slots, second.arrivals[0].priority) == (["b"], 2, 1)
    assert parse(json.loads(second.model_dump_json(exclude={"name", "agents_first"})), "again").requests == 1
