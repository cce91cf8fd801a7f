"""Which addresses are the internet's: what programs that go where users say may connect to.

The check belongs on the address that the connection then goes to. A name that is looked up twice may mean two
things.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Networks whose addresses carry an IPv4 address in their last four bytes.
_EMBEDDING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
#: What the registries of special-purpose addresses (iana.org/assignments/iana-ipv4-special-registry and -ipv6-)
#: name besides what every supported Python knows of: some have learnt it later than others.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",
            "192.88.99.0/24",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "3fff::/20",
            "5f00::/16",
        ),
    )
)
#: Public by its number, but inside Azure's machines it is Azure's own service
#: (learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
_AZURE = ipaddress.IPv4Address("168.63.129.16")


def read(text: str) -> Address:
    """An address as a resolver writes it, perhaps with the interface behind a %.

    Raises:
        ValueError: it is none.
    """
    return ipaddress.ip_address(text.partition("%")[0])


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's, also behind the notations that carry one in another."""
    if isinstance(address, ipaddress.IPv6Address):
        if (inner := embedded(address)) is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    if address == _AZURE or any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this IPv6 address end at; None if it carries none."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if int(address) > 1 and any(address in network for network in _EMBEDDING):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
