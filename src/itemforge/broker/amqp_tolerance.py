"""Reading whatever a foreign program may have published, without losing the connection over it.

AMQP allows in a message's properties what Python cannot hold: a time after the year 9999, names that are
no UTF-8, tables nested without end, a delivery mode of 7. The library then closes the connection, or never
hands the message out. The broker keeps the message and delivers it again, so one such message would
stop every worker for good. We read a message's headers and nothing else, so here the rest is dropped, and
headers that cannot be read count as none: the body decides what becomes of the message.
"""

import struct

import structlog
from pamqp import decode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

log = structlog.get_logger(__name__)

#: What decoding raises over values that it cannot hold.
_UNREADABLE = (ValueError, ArithmeticError, OSError, LookupError, RecursionError, struct.error)
_START = struct.Struct(">HHQ")  # class, weight, length of the body

_read_all = ContentHeader.unmarshal


def _read_what_we_use(self: ContentHeader, data: bytes) -> None:
    try:
        _read_all(self, data)
        read = self.properties
    except _UNREADABLE as error:
        log.warning("message_properties_unreadable", error=type(error).__name__)
        self.class_id, self.weight, self.body_size = _START.unpack_from(data)
        read = Basic.Properties()
    # The message id tells the library which of our own messages came back as unroutable.
    self.properties = Basic.Properties(headers=read.headers, message_id=read.message_id)


def _short_text(value: bytes) -> tuple[int, str]:
    """A short string, such as the routing key of a delivery: bytes that are no UTF-8 are replaced."""
    length = value[0] if value else 0
    return length + 1, value[1 : length + 1].decode("utf-8", "replace")


def install() -> None:
    """Make this process's AMQP library tolerant; again is no error."""
    ContentHeader.unmarshal = _read_what_we_use  # type: ignore[method-assign]  # it has no other seam
    decode.METHODS["shortstr"] = _short_text
