"""What the process manager's log tells of an ending."""

from __future__ import annotations

from roundhouse.cli import drain, ending

LOG = """\
10:00:00 system      | redis.1 started (pid=10)
10:00:00 system      | proxy.1 started (pid=13)
10:00:01 redis.1     | ready
10:00:02 proxy.1     | cannot listen on 10.9.9.9:7000
10:00:02 system      | proxy.1 stopped (rc=1)
10:00:02 system      | sending SIGTERM to redis.1 (pid 10)
10:00:03 redis.1     | bye
10:00:03 system      | redis.1 stopped (rc=-15)
"""


def told(*more: str) -> ending.Ending:
    return ending.of_log([*LOG.splitlines()[:3], *more])


def test_who_ended_first_is_named_with_its_own_last_words() -> None:
    """They were above the lines of those who ended because of it."""
    it = ending.of_log(LOG.splitlines())
    assert (it.name, it.at, it.last) == ("proxy", "10:00:02", ("cannot listen on 10.9.9.9:7000",))
    assert str(it) == "proxy ended (code 1) and took the others with it"


def test_only_the_end_of_what_it_said_is_shown() -> None:
    said = [f"10:00:02 proxy.1     | {number}" for number in range(99)]
    it = told(*said, "10:00:02 system      | proxy.1 stopped (rc=1)")
    assert it.last == tuple(str(number) for number in range(99 - ending.LINES, 99))


def test_a_signal_has_its_name() -> None:
    assert "was killed (SIGKILL)" in str(told("10:00:02 system      | proxy.1 stopped (rc=-9)"))
    assert "was killed (signal 99)" in str(told("10:00:02 system      | proxy.1 stopped (rc=-99)"))


def test_a_process_manager_that_was_told_to_end_is_no_fault_of_a_service() -> None:
    it = told("10:00:02 system      | SIGTERM received", "10:00:03 system      | redis.1 stopped (rc=0)")
    assert str(it) == "the process manager was told to end (SIGTERM)"


def test_a_log_without_an_end_is_that_of_one_who_was_killed() -> None:
    assert str(told()) == "the process manager was killed"
    assert ending.of_log([]).last == ()
    assert ending.of_log(["Traceback", "ValueError: x"]).last == ("Traceback", "ValueError: x")


def test_running_answers_are_counted_by_their_model() -> None:
    def models(**leases: int) -> drain.Status:
        return {"models": {name: {"state": "draining", "leases": count} for name, count in leases.items()}}

    assert drain.words(models(a=1)) == "waiting for 1 running answer of a to end"
    assert drain.words(models(a=2, b=1)) == "waiting for 2 running answers of a and 1 running answer of b to end"
    assert drain.words(models(a=0)) == ""
    assert drain.words({"models": {"a": {"state": "ready", "leases": 3}}}) == ""
