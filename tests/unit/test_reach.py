"""Where a URL in a request may lead.

vllm-project/vllm#57157, sgl-project/sglang#17269: an engine fetched from loopback and link-local for whoever asked.
"""

from __future__ import annotations

import pytest

from roundhouse.hooks import reach
from roundhouse.hooks.reach import Reach

PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
NOT = [
    *[
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
    ],
    *["100.64.0.1", "192.0.0.192", "198.18.0.1", "168.63.129.16", "224.0.0.1", "240.0.0.1", "255.255.255.255"],
    *["::", "::1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"],
    *["::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:db8::1"],
    *["", "x", "127.1", "1.1.1.1:80"],
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_open_to_everybody(address: str) -> None:
    assert Reach().allows(address, admin=False)


@pytest.mark.parametrize("address", NOT)
@pytest.mark.parametrize("admin", [False, True])
def test_no_other_address_is_open_to_anybody_by_default(address: str, admin: bool) -> None:
    assert not Reach().allows(address, admin=admin)


def test_this_machines_public_addresses_are_its_own() -> None:
    assert not Reach().allows("93.184.216.34", admin=False, own=["93.184.216.34"])
    assert not Reach().allows("::ffff:93.184.216.34", admin=False, own=["93.184.216.34"])


def test_a_named_network_is_open_to_everybody() -> None:
    reach_ = reach.parse("192.168.1.0/24, fd00::7")
    assert reach_.allows("192.168.1.9", admin=False)
    assert reach_.allows("::ffff:192.168.1.9", admin=False)
    assert reach_.allows("fd00::7", admin=False)
    assert not reach_.allows("192.168.2.9", admin=True)
    assert not reach_.allows("127.0.0.1", admin=True)


def test_with_master_an_admins_key_reaches_everything_and_no_other_key_more_than_before() -> None:
    reach_ = reach.parse("master")
    assert reach_.allows("127.0.0.1", admin=True)
    assert not reach_.allows("127.0.0.1", admin=False)
    assert not reach_.allows("x", admin=True)


@pytest.mark.parametrize("text", ["admin", "192.168.1.0/33", "192.168.1.7/24", "localhost"])
def test_what_is_no_network_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="ROUNDHOUSE_MEDIA_NETWORKS has"):
        reach.parse(text)
