"""The states of a request, and the one function that owns its legal transitions.

    Pending ──▶ Processing ──▶ Completed
      ▲  │          │  │ └───▶ Failed
      │  │          │  └─────▶ Cancelled
      └──┼──────────┘
         ├─▶ Failed
         └─▶ Cancelled

`Completed`, `Failed` and `Cancelled` are terminal and never change; a retry is a new request.
"""

from itemforge.contract import Status
from itemforge.errors import PermanentError

OPEN = (Status.PENDING, Status.PROCESSING)
TERMINAL = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

_LEGAL: dict[Status, tuple[Status, ...]] = {
    Status.PENDING: (Status.PROCESSING, Status.FAILED, Status.CANCELLED),
    Status.PROCESSING: (Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED),
    Status.COMPLETED: (),
    Status.FAILED: (),
    Status.CANCELLED: (),
}


class IllegalTransition(PermanentError):
    """A request cannot go from one state to the other."""


def route(old: Status, new: Status) -> tuple[Status, ...]:
    """The states that a request passes on its way from `old` to `new`, `new` included.

    A picture that arrives after its lease ran out finds the request Pending: it was Processing all the
    while, so that is how it is told.

    >>> route(Status.PENDING, Status.COMPLETED)
    (<Status.PROCESSING: 'Processing'>, <Status.COMPLETED: 'Completed'>)

    Raises:
        IllegalTransition: there is no way.
    """
    if new in _LEGAL[old]:
        return (new,)
    if old is Status.PENDING and new is Status.COMPLETED:
        return (Status.PROCESSING, Status.COMPLETED)
    raise IllegalTransition(f"a request cannot go from {old} to {new}")
