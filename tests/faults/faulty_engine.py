"""A fake engine that fails as a GPU does, each prompt's first time: then a new try succeeds.

`oomonce` runs out of memory for its own row; `sticky` is an error after which the device is lost for the
whole process. What failed already is remembered in the hold file's folder, across processes.
"""

from collections.abc import Callable

from counted_engine import CountedEngine

from itemforge.engine.rows import Event, Failed, Row
from itemforge.settings import EngineSettings


class FaultyEngine(CountedEngine):
    def _step(self, row: Row) -> list[Event]:
        word = row.prompt.split()[0]
        if word in ("oomonce", "sticky") and self._steps[row.row_id] == 1 and self._first_time(row):
            if word == "sticky":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            del self._rows[row.row_id]
            return [Failed(row.row_id, "CUDA out of memory", retryable=True)]
        return super()._step(row)

    def _first_time(self, row: Row) -> bool:
        try:
            self._hold.with_name(f"failed-{row.row_id.split('/')[0]}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def load(settings: EngineSettings, on_stage: Callable[[str, float], None]) -> FaultyEngine:
    return FaultyEngine(settings.batch_size or 4, on_stage)
