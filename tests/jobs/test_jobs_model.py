"""Random lives of a request against a small model of the rules: whatever happens, in whatever order."""

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from databases import completed, new_request, reload, report, states
from itemforge.contract import MAX_CHARGED, Heartbeat, HeartbeatRow, ReportStatus, Status, WorkerState
from itemforge.jobs import claims, heartbeats, publishing, requests
from itemforge.jobs.database import Database

BACK = st.integers(0, 2)  # how many attempts a worker is behind
STEPS = st.one_of(
    st.tuples(st.just("claim"), st.sampled_from([30.0, -1.0])),
    st.tuples(st.sampled_from(["Completed", "Failed", "Retry", "Released", "beat"]), BACK),
    st.tuples(st.sampled_from(["sweep", "cancel", "reopen"]), st.none()),
)


@dataclass
class Model:
    """What the rules say the row is."""

    status: str = "Pending"
    attempt: int = 0
    charged: int = 0
    leased: bool = False
    reported: str | None = None

    @property
    def open(self) -> bool:
        return self.status in ("Pending", "Processing")

    def claim(self, lease: float) -> str:
        if not self.open:
            return "done"
        if self.leased:
            return "leased"
        if self.charged >= MAX_CHARGED:
            self.status = "Failed"
            return "exhausted"
        self.status, self.leased, self.reported = "Processing", lease > 0, None
        self.attempt += 1
        self.charged += 1
        return "claimed"

    def report(self, status: str, attempt: int) -> int:
        if attempt != self.attempt or attempt == 0:
            return 409
        if not self.open:
            return 200 if self.status == status and self.reported == status else 409
        if status in ("Completed", "Failed"):
            self.status, self.leased, self.reported = status, False, status
            return 200
        if self.reported is not None:
            return 200 if self.reported == status else 409
        self.status, self.leased, self.reported = "Pending", False, status
        self.charged -= status == "Released"
        return 200

    def beat(self, attempt: int) -> tuple[bool, bool]:
        """(cancel, lost)"""
        if self.status == "Cancelled":
            return True, False
        if not self.open or attempt != self.attempt or attempt == 0 or self.reported is not None:
            return False, True
        self.status, self.leased = "Processing", True
        return False, False

    def sweep(self) -> None:
        if self.status == "Processing" and not self.leased:
            self.status = "Pending"

    def cancel(self) -> None:
        if self.open:
            self.status, self.leased, self.reported = "Cancelled", False, None

    def reopen(self) -> None:
        if self.status == "Processing":
            self.status, self.leased = "Pending", False


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEPS, max_size=14))
async def test_whatever_happens_the_rules_hold(db: Database, steps: list[tuple[str, Any]]) -> None:
    request_id = (await new_request(db)).id
    model = Model()
    for step, value in steps:
        attempt = max(0, model.attempt - value) if isinstance(value, int) else 0
        match step:
            case "claim":
                (claim,) = await claims.claim(db, "w", [request_id], value)
                assert claim.outcome == model.claim(value)
            case "beat":
                row = HeartbeatRow(request_id=request_id, attempt=attempt, step=1, steps=2)
                beat = Heartbeat(worker_id="w", state=WorkerState.READY, free=0, rows=[row])
                (answer,) = await heartbeats.beat(db, beat, 30, lambda: 0.0)
                assert (answer.cancel, answer.lost) == model.beat(attempt)
            case "sweep":
                await publishing.expire_leases(db)
                model.sweep()
            case "cancel":
                await requests.cancel(db, request_id)
                model.cancel()
            case "reopen":
                await publishing.reopen_all(db)
                model.reopen()
            case _:
                done = step == "Completed"
                item = (
                    completed(request_id, attempt)
                    if done
                    else report(request_id, ReportStatus(step), attempt)
                )
                (code,) = await claims.report(db, [item])
                assert code.code == model.report(step, attempt)
        row = await reload(db, request_id)
        assert (row.status, row.attempt, row.charged, row.leased) == (
            model.status, model.attempt, model.charged, model.leased,
        )  # fmt: skip
        assert (row.finished_at is not None) == Status(model.status).terminal
    told = await states(db, request_id)
    assert told[-1] == model.status
    assert sum(Status(status).terminal for status in told) <= 1
    await requests.cancel(db, request_id)  # what is left open would be swept in the next example
