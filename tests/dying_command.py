"""An `itemforge` command that is killed at the Nth thing it does: `python dying_command.py N COUNT ARGUMENT…`.

Counted is what the code of `itemforge.dataset` calls and returns from, in all threads: reading, writing, renaming, each
statement of the database. So N is a place in the program, not a moment that a busy machine would shift. With
N = 0 the command lives, and writes how many there were into the file COUNT.
"""

import atexit
import itertools
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import itemforge.dataset
from itemforge.cli import run

_OURS = str(Path(itemforge.dataset.__file__).parent)


def main(die_at: int, count_file: str, arguments: list[str]) -> None:
    counter = itertools.count(1)
    seen = [0]

    def look(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(_OURS) and code.co_name != "<module>":
            seen[0] = next(counter)
            if seen[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    atexit.register(lambda: Path(count_file).write_text(str(seen[0])))
    sys.argv = ["itemforge", *arguments]
    threading.setprofile(look)
    sys.setprofile(look)
    run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
