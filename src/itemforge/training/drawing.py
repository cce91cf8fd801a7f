"""Many rows through one engine."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from itemforge.engine.loop import Engine
from itemforge.engine.rows import Failed, Finished, Row
from itemforge.errors import ModelError

Pixels = NDArray[np.uint8]
#: Hears how many pictures are done, of how many.
OnPicture = Callable[[int, int], None]


def draw_rows(
    engine: Engine, rows: Sequence[Row], on_picture: OnPicture = lambda done, of: None
) -> list[Pixels]:
    """The pictures in the order of their rows, uint8 (height, width, 3); every row has an id of its own.

    Raises:
        ModelError: a picture could not be drawn.
    """
    for row in rows:
        engine.submit(row)
    prompts = {row.row_id: row.prompt for row in rows}
    drawn: dict[str, Pixels] = {}
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Finished):
                drawn[event.row_id] = event.pixels
                on_picture(len(drawn), len(rows))
            elif isinstance(event, Failed):
                raise ModelError(f"{prompts[event.row_id]!r} could not be drawn: {event.error}")
    return [drawn[row.row_id] for row in rows]
