"""Which addresses may be spoken to: public ones, whatever name or notation leads there.

The check is made on the address that the connection then goes to. A name that is looked up twice may mean two things.
"""

import socket

from itemforge.addresses import is_public, read
from itemforge.dataset.crawl.failures import AddressRefused


def permitted(host: str, port: int, allow_private: bool) -> list[str]:
    """The addresses of a host that may be connected to.

    Raises:
        AddressRefused: it has none.
        OSError: it is not known.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if allow_private:
        return addresses
    public = [each for each in addresses if is_public(read(each))]
    if not public:
        raise AddressRefused(f"{host} is {', '.join(addresses)}, which is no public address")
    return public
