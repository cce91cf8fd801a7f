import itertools

import pytest

from itemforge.contract import Status
from itemforge.jobs.states import OPEN, TERMINAL, IllegalTransition, route

LEGAL = {
    ("Pending", "Processing"),
    ("Pending", "Failed"),
    ("Pending", "Cancelled"),
    ("Processing", "Pending"),
    ("Processing", "Completed"),
    ("Processing", "Failed"),
    ("Processing", "Cancelled"),
}


@pytest.mark.parametrize("old, new", list(itertools.product(Status, Status)))
def test_only_the_designed_transitions_are_legal(old: Status, new: Status) -> None:
    if (old, new) in LEGAL:
        assert route(old, new) == (new,)
    elif (old, new) == (Status.PENDING, Status.COMPLETED):
        assert route(old, new) == (Status.PROCESSING, Status.COMPLETED)
    else:
        with pytest.raises(IllegalTransition, match=f"from {old} to {new}"):
            route(old, new)


def test_every_status_is_open_or_terminal() -> None:
    assert {*OPEN, *TERMINAL} == set(Status)
    assert all(status.terminal for status in TERMINAL)
    assert not any(status.terminal for status in OPEN)
