"""A publisher that writes AMQP's bytes itself, for messages that no client library would send.

Only the content header is written by hand; the rest of the conversation is pamqp's.
"""

import socket
import struct
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame
from pamqp.header import ProtocolHeader

#: Bits of a content header's flags, in the order of the fields.
FLAGS = {
    "content_type": 15,
    "content_encoding": 14,
    "headers": 13,
    "delivery_mode": 12,
    "priority": 11,
    "correlation_id": 10,
    "reply_to": 9,
    "expiration": 8,
    "message_id": 7,
    "timestamp": 6,
    "type": 5,
    "user_id": 4,
    "app_id": 3,
}
_BODY_FRAME = 100_000
_METHOD, _HEADER, _BODY = 1, 2, 3


def short(text: bytes) -> bytes:
    """A short string: its length in one byte."""
    return bytes([len(text)]) + text


def long(data: bytes) -> bytes:
    """A long string or the inside of a table or array: its length in four bytes."""
    return struct.pack(">I", len(data)) + data


def table(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A field table of names and values that are encoded already, with their types."""
    return long(b"".join(short(name) + value for name, value in pairs))


def properties(fields: dict[str, bytes]) -> bytes:
    """Flags and values of a content header."""
    flags = sum(1 << FLAGS[name] for name in fields)
    return struct.pack(">H", flags) + b"".join(fields[name] for name in FLAGS if name in fields)


class RawPublisher:
    """One connection at a time; the broker closes it over bytes that it does not take."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._socket: socket.socket | None = None
        self._received = b""

    def publish(self, routing_key: bytes, body: bytes, header: bytes) -> bool:
        """To the default exchange: True when the broker has confirmed it, False when it refused it."""
        if self._socket is None:
            self._connect()
        # Class 60, method 40; a reserved number, the exchange, the routing key, no flags.
        method = struct.pack(">HHH", 60, 40, 0) + short(b"") + short(routing_key) + b"\0"
        content = struct.pack(">HHQ", 60, 0, len(body)) + header
        parts = [body[at : at + _BODY_FRAME] for at in range(0, len(body), _BODY_FRAME)]
        data = _frame(_METHOD, method) + _frame(_HEADER, content)
        data += b"".join(_frame(_BODY, part) for part in parts)
        try:
            self._send(data)
            answer = self._frame()
        except OSError:
            answer = None
        if isinstance(answer, commands.Basic.Ack):
            return True
        self.close()
        return False

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._received = b""

    def _connect(self) -> None:
        parts = self._parts
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 5672), 20)
        self._send(ProtocolHeader().marshal())
        self._frame()
        login = f"\0{unquote(parts.username or '')}\0{unquote(parts.password or '')}"
        self._call(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), 0)
        self._send(frame.marshal(commands.Connection.TuneOk(1, 131072, 0), 0))
        self._call(commands.Connection.Open(unquote(parts.path[1:])), 0)
        self._call(commands.Channel.Open(), 1)
        self._call(commands.Confirm.Select(), 1)

    def _call(self, method: frame.base.Frame, channel: int) -> object:
        self._send(frame.marshal(method, channel))
        return self._frame()

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(data)

    def _frame(self) -> object:
        kind, size = 0, 0
        while True:
            if len(self._received) >= 7:
                kind, _, size = struct.unpack(">BHI", self._received[:7])
                if len(self._received) >= size + 8:
                    break
            assert self._socket is not None
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError("the broker closed the connection")
            self._received += more
        data, self._received = self._received[: size + 8], self._received[size + 8 :]
        assert kind == _METHOD, kind
        return frame.unmarshal(data)[2]


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"
