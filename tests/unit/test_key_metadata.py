"""What a person may write into a key's metadata, and where the database is."""

from __future__ import annotations

from typing import Any

import pytest

from roundhouse.config import key_metadata
from roundhouse.config import virtual_keys as keys
from roundhouse.hooks.caller import asking
from roundhouse.proxy.database import address


def test_what_is_set_stands_in_the_section_of_ours_and_nothing_else_does() -> None:
    it = key_metadata.parse({"priority": "batch", "max_wait": 20})
    assert it.as_metadata() == {"roundhouse": {"priority": "batch", "max_wait": 20.0}}
    assert key_metadata.parse({}).as_metadata() == {}


@pytest.mark.parametrize(
    "values",
    [{"priority": "high"}, {"may_switch": "sometimes"}, {"max_wait": -1}, {"max_wait": float("inf")}, {"maxwait": 1}],
)
def test_a_bad_value_is_refused_with_its_name(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        key_metadata.parse(values)


def test_the_gate_reads_what_the_command_writes() -> None:
    written = key_metadata.parse({"priority": "batch", "may_switch": "never", "max_wait": 7}).as_metadata()
    read = asking({"metadata": {"user_api_key_metadata": written}}, 300.0)
    assert (read.priority, read.may_switch, read.max_wait_s) == ("batch", False, 7.0)


@pytest.mark.parametrize(("value", "on"), [(None, True), ("", True), ("on", True), ("off", False)])
def test_keys_are_on_unless_switched_off(value: str | None, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUNDHOUSE_KEYS", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("ROUNDHOUSE_KEYS", value)
    assert keys.enabled() is on
    assert keys.own_database() is on
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/x")
    assert keys.own_database() is False


def test_another_word_for_the_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_KEYS", "no")
    with pytest.raises(ValueError, match="ROUNDHOUSE_KEYS is 'no': it must be on or off"):
        keys.enabled()


def test_libpq_gets_an_address_without_what_only_prisma_knows() -> None:
    url = "postgresql://u:p%40@host:1/db?connection_limit=5&sslmode=require&schema=mine&pgbouncer=true"
    assert address.for_libpq(url) == "postgresql://u:p%40@host:1/db?sslmode=require&options=-csearch_path%3Dmine"
    assert address.for_libpq("postgresql://u@%2Fa%2Fb/db") == "postgresql://u@%2Fa%2Fb/db"
    assert address.where(url) == "host:1/db"
