"""Where the gateway listens, and the address that commands and clients are given.

jundot/omlx#963: a launcher that binds to a custom address went on asking 127.0.0.1, and showed "starting" for ever.
"""

from __future__ import annotations

import socket

import pytest

from roundhouse.config import address


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:7000/v1"),
        ("127.0.0.2", "http://127.0.0.2:7000/v1"),
        ("192.168.1.7", "http://192.168.1.7:7000/v1"),
        ("0.0.0.0", "http://127.0.0.1:7000/v1"),
        ("::", "http://127.0.0.1:7000/v1"),
        ("[::]", "http://127.0.0.1:7000/v1"),
        ("::1", "http://[::1]:7000/v1"),
        ("[fd7a::5]", "http://[fd7a::5]:7000/v1"),
        ("box.tailnet.ts.net", "http://box.tailnet.ts.net:7000/v1"),
        ("localhost", "http://localhost:7000/v1"),
    ],
)
def test_the_address_for_clients_is_one_that_can_be_connected_to(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUNDHOUSE_HOST", host)
    assert address.base_url() == url


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7000", "http://127.0.0.1", "10.0.0.256", "fe80::1%eth0", "a b", "[::1]:7000", "1.2.3"]
)
def test_what_is_no_host_is_said(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_HOST", host)
    with pytest.raises(ValueError, match="ROUNDHOUSE_HOST is "):
        address.base_url()


@pytest.mark.parametrize(
    ("listening", "reached"),
    [
        ("127.0.0.2", "127.0.0.2"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "::1"),
        ("localhost", "localhost"),
    ],
)
def test_what_listens_is_reached_at_the_address_for_clients(listening: str, reached: str) -> None:
    with address.bound(listening, 0) as listener:
        listener.listen()
        with socket.create_connection((address.reached_at(listening), listener.getsockname()[1]), timeout=5):
            pass
    assert address.reached_at(listening) == reached


def test_a_port_that_is_taken_is_not_bound_twice() -> None:
    with address.bound("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(OSError, match="in use"):
            address.bound("127.0.0.1", first.getsockname()[1])
