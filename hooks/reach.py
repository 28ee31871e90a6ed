"""Where a URL in a request may lead: to public addresses, and to networks that the operator has named. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

SETTING = "ROUNDHOUSE_MEDIA_NETWORKS"
MASTER = "master"

Address = IPv4Address | IPv6Address

NOT_PUBLIC = (
    ip_network("168.63.129.16/32"),  # Azure's host, from within its machines
    ip_network("192.0.0.0/24"),  # for protocols; some releases of Python take it for public
)
NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Reach:
    """``networks`` are open to every key's URLs; with ``master`` an admin's key reaches all addresses."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    master: bool = False

    def allows(self, address: str, *, admin: bool, own: Collection[str] = ()) -> bool:
        """Whether a URL may lead to ``address``; ``own`` are the addresses of this machine, public ones too.

        What is no address is not allowed.
        """
        try:
            found = ip_address(address.split("%")[0])
        except ValueError:
            return False
        if self.master and admin:
            return True
        ends = _ends(found)
        if all(any(it in network for network in self.networks) for it in ends):
            return True
        return all(_is_public(it) and str(it) not in own for it in ends)


def parse(text: str) -> Reach:
    """The setting's value: networks or addresses with commas between them, and the word ``master``.

    Raises:
        ValueError: one is neither.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    networks = []
    for word in words:
        if word == MASTER:
            continue
        try:
            networks.append(ip_network(word))
        except ValueError as error:
            raise ValueError(f"{SETTING} has {word!r}: it must be {MASTER}, or a network as 192.168.1.0/24") from error
    return Reach(tuple(networks), MASTER in words)


def _ends(address: Address) -> list[Address]:
    """Where a packet to ``address`` comes out: IPv6 has many ways to say an IPv4 address."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return list(address.teredo)
    if address in NAT64:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address]


def _is_public(address: Address) -> bool:
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not special and not any(address in network for network in NOT_PUBLIC)
