"""The gateway's socket, apart from the server: whoever needs only the port need not load the rest."""

import ipaddress
import socket

from itemforge.errors import ConfigurationError

_BACKLOG = 2048


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address (without port) means this machine itself."""
    if host is None:
        return False
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, so that a taken port is known before anything starts; port 0 takes a free one.

    Raises:
        ConfigurationError: the address is taken, not ours, or unknown.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host!r}: {error.strerror}; set ITEMFORGE_HOST") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}; "
            "choose another with --port or ITEMFORGE_PORT (0 takes a free one)"
        ) from None
    listener.setblocking(False)
    return listener
